"""The form of a request: an editor for each input, settings for each target, and options. It is drawn again whenever the choice changes."""

import html
from typing import Any, NamedTuple

from maskweave.generate.schedule import GRID_SCHEMES
from maskweave.modality.decoding import Ramp
from maskweave.modality.entry import Modality
from maskweave.report.figures import draw
from maskweave.studio.desk import Desk, Field, first_payload, input_value, is_shown, settings_of
from maskweave.studio.editors import MOST_PAINTED, Editor, editors_of
from maskweave.studio.events import HIDDEN, on
from maskweave.studio.showing import card, figure, png_source
from maskweave.studio.widgets import component, own

PREVIEWED = ("picture", "file", "sound", "video")
"""Widgets of files: an error in one is shown at once."""


class Form(NamedTuple):
    """The parts of a form."""

    fields: list[tuple[Field, Any]]
    """Each field with its component."""
    generate: Any
    stop: Any


def draw_form(page: Any, state: Desk, desk: Any, version: Any) -> Form:
    """Draws the form for what is chosen.

    Args:
        page: a `maskweave.studio.page.Page`.
        state: the desk; `desk` and `version` are its components.

    Raises:
        MaskweaveError: the bundle cannot be loaded.
    """
    import gradio as gr

    bundle = page.offered.bundle(state.bundle)
    fields: list[tuple[Field, Any]] = []
    for name in state.inputs:
        fields += _input(page, state, bundle.catalog[name], desk, version)
    edited = state.edited(bundle.catalog)
    for name in edited:
        with gr.Accordion(f"Repaint a part of {name}", open=True):
            fields += _region(page, state, bundle, name, fields, desk)
    with gr.Accordion("Steps and guidance", open=False):
        for name in state.targets:
            fields += _settings(state, bundle.catalog[name])
        with gr.Row():
            for name in state.inputs:
                place = Field("condition", name, "")
                number = gr.Textbox(
                    state.drafts.get(place, shown_number(state.request.conditions.get(name))),
                    label=f"Guidance by {name}",
                    placeholder="entry's own",
                    min_width=120,
                    interactive=True,
                )
                fields.append((place, number))
        for key, label in (
            ("chain", "Each finished target joins the inputs"),
            ("guide_with_finished", "Finished targets guide, too"),
        ):
            box = gr.Checkbox(_option(state, key), label=label, interactive=True)
            fields.append((Field("option", "", key), box))
    with gr.Group():
        with gr.Row():
            for key, label in (("seed", "Seed"), ("samples", f"Samples (at most {page.bounds.samples})")):
                whole = gr.Number(_option(state, key), label=label, precision=0, min_width=90, interactive=True)
                fields.append((Field("option", "", key), whole))
        box = gr.Checkbox(_option(state, "ensemble"), label="Merge the samples", interactive=True)
        fields.append((Field("option", "", "ensemble"), box))
    with gr.Row():
        go = gr.Button(
            "Generate", variant="primary", scale=3, elem_id="generate", elem_classes=[f"mw-form-{state.version}"]
        )
        stop = gr.Button("Stop", scale=1, min_width=80)
    for place, part in fields:
        _keep(part, place, state.drawn(place.name), desk)
    return Form(fields, go, stop)


def _option(state: Desk, key: str) -> Any:
    draft = state.drafts.get(Field("option", "", key))
    return getattr(state.request, key) if draft is None else draft


def _keep(part: Any, place: Field, drawn: tuple[int, int], desk: Any) -> None:
    """Keeps what a field has for the next form. Gradio forgets it, whether or not a component has a key."""

    def keep(payload: Any, current: Desk) -> None:
        current.keep(place, payload, drawn)

    on(part.change, keep, [part, desk], None, queue=False, trigger_mode="always_last", **HIDDEN)


def shown_number(number: Any) -> str:
    """Returns the text, with all digits, of a field that may stay empty; a Gradio number that is empty becomes 0 when the form is drawn again."""
    return "" if number is None else str(number).removesuffix(".0")


def _input(page: Any, state: Desk, modality: Modality, desk: Any, version: Any) -> list[tuple[Field, Any]]:
    import gradio as gr

    with gr.Group():
        held = state.held.get(modality.name)
        if held is not None and not is_shown(state, modality):
            _held(modality, held, desk, version)
        found = [_editor(state, modality, editor, number) for number, editor in enumerate(editors_of(modality.value))]
    uploads = [(place, part) for place, part in found if place.key in PREVIEWED]
    preview = gr.HTML()

    def look(current: Desk, *files: Any) -> str:
        given = {place.key: upload for (place, _), upload in zip(uploads, files, strict=True) if upload is not None}

        def work() -> str:
            value = input_value(current, modality, given)
            return figure(modality, value) if "file" in given else ""  # the other components show what they have

        shown: str = page.said(work, lambda words: words) if given else ""
        return shown

    parts = [part for _, part in uploads]
    for part in parts:
        on(part.change, look, [desk, *parts], [preview], **HIDDEN)
    return found


def _held(modality: Modality, held: Any, desk: Any, version: Any) -> None:
    """Draws a value that no widget can show, and a button that takes it away."""
    import gradio as gr

    with gr.Row(equal_height=False):
        gr.HTML(card(modality.name, figure(modality, held)), padding=True)
        drop = gr.Button(f"Remove {modality.name}", min_width=80, size="sm")

    def dropped(current: Desk) -> int:
        current.drop(modality.name)
        return current.version

    on(drop.click, dropped, [desk], [version], **HIDDEN)


def _editor(state: Desk, modality: Modality, editor: Editor, number: int) -> tuple[Field, Any]:
    import gradio as gr

    widget, name = editor.widget, modality.name
    payload, settings = first_payload(state, modality, widget), editor.settings(modality.value)
    if number:
        endings = ", ".join(modality.value.endings[:6])
        with gr.Accordion("or a drawing" if widget == "draw" else f"or a file ({endings}, …)", open=False):
            part = component(widget, name, payload, settings)
    else:
        part = component(widget, name, payload, settings)
    return Field("input", name, widget), part


def _region(
    page: Any, state: Desk, bundle: Any, name: str, drawn: list[tuple[Field, Any]], desk: Any
) -> list[tuple[Field, Any]]:
    import gradio as gr

    modality = bundle.catalog[name]
    found = []
    size = modality.value.size
    if len(modality.grid) == 2 and len(size) == 2 and max(size) <= MOST_PAINTED:
        source = bundle.catalog[next(n for n in state.inputs if bundle.catalog[n].reads == modality.reads)]

        def background(current: Desk, payloads: dict[str, Any]) -> str:
            def work() -> str:
                value = input_value(current, source, payloads)
                return png_source(draw(source, bundle.read({source.name: value})[source.name], (size[0], size[1])))

            shown: str = page.said(work, lambda words: "")  # nothing is given yet, or the editor itself shows the error
            return shown

        settings = {"size": list(size), "classes": ["repaint"], "colors": [[217, 83, 59]]}
        place = Field("region", name, "paint")
        editors = [(at.key, part) for at, part in drawn if at.role == "input" and at.name == source.name]
        first = background(state, {key: first_payload(state, source, key) for key, _ in editors})
        widget = own("mask", name, state.drafts.get(place), settings, first)
        found.append((place, widget))

        def look(current: Desk, *payloads: Any) -> Any:
            given = {key: payload for (key, _), payload in zip(editors, payloads, strict=True)}
            return gr.update(background=background(current, given))

        parts = [part for _, part in editors]
        for part in parts:
            on(part.change, look, [desk, *parts], [widget], **HIDDEN)
        hint = "a share of it such as 0.3, or a box xmin,ymin,xmax,ymax from 0 to 1"
    else:
        hint = "words of the text" if modality.kind == "sequence" else "a share of it, such as 0.3"
    typed, label = Field("region", name, "typed"), f"Region of {name}: {hint}"
    text = gr.Textbox(state.drafts.get(typed), label=label, lines=1, interactive=True)
    return [(typed, text), *found]


def _settings(state: Desk, modality: Modality) -> list[tuple[Field, Any]]:
    import gradio as gr

    own_settings = modality.decoding
    changed: dict[str, Any] = dict(state.request.decoding.get(modality.name, {}))
    found: list[tuple[Field, Any]] = []
    gr.HTML(f"<strong>{html.escape(modality.name)}</strong>", padding=True)
    with gr.Row():
        for key in settings_of(modality):
            place, label = Field("decoding", modality.name, key), f"{modality.name}: {key}"
            first = state.drafts.get(place, changed.get(key))
            default = getattr(own_settings, key)
            if key == "scheme":
                part: Any = gr.Dropdown(
                    [(f"{default} (entry's own)", ""), *GRID_SCHEMES],
                    value=first or "",
                    label=label,
                    min_width=120,
                    interactive=True,
                )
            else:
                part = gr.Textbox(
                    shown_number(first),
                    label=label,
                    placeholder="changes with the step" if isinstance(default, Ramp) else shown_number(default),
                    min_width=100,
                    interactive=True,
                )
            found.append((place, part))
    return found
