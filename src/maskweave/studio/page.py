"""The page: Gradio components, and what their events call. All logic is in the other files of this folder."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.limits import ReadingLimits, limited_to
from maskweave.studio.bounds import Bounds
from maskweave.studio.desk import Desk, Field, read_inputs, read_request
from maskweave.studio.events import HIDDEN, MODEL, guarded, on, page_load, told
from maskweave.studio.offered import Offered
from maskweave.studio.request import as_command, as_python, schedule_text
from maskweave.studio.running import likelihood, run
from maskweave.studio.saving import open_request, save_request
from maskweave.studio.showing import likelihood_html, progress_html, status_html

TITLE = "maskweave studio"
IDLE = '<div class="mw-status" role="status">Give the inputs, choose the targets, and press Generate. Results appear here, step by step.</div>'
NAMES_FILES = '<p class="mw-note mw-wide">The code and the command read files that are in the saved request: press Save the request, unpack the ZIP file, and run them in that folder.</p>'
CLEANED = (600, 3600)
"""Uploads are looked at every so many seconds, and removed at this age."""


class Page:
    """What the parts of a page share.

    Args:
        scratch: folder of files for download.
    """

    def __init__(self, offered: Offered, bounds: Bounds, scratch: Path):
        self.offered, self.bounds, self.scratch = offered, bounds, scratch

    def reading(self) -> Any:
        """Context in which uploads are read within the page's bounds."""
        return limited_to(ReadingLimits(value_mb=self.bounds.value_mb, text_mb=self.bounds.upload_mb))

    def said(self, work: Callable[[], Any], failed: Callable[[str], Any]) -> Any:
        """Returns what `work` returns, or what `failed` makes of the HTML of an error. Tracebacks go to the terminal."""
        try:
            with self.reading():
                return work()
        except Exception as error:
            return failed(told(error))


def build_page(offered: Offered, bounds: Bounds, scratch: Path) -> Any:
    """Returns the page as Gradio Blocks with a queue.

    Args:
        scratch: folder of files for download.

    Raises:
        MaskweaveError: Gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise MaskweaveError(
            f"the studio needs gradio, which cannot be imported ({error}); install it with: pip install 'maskweave[studio]'"
        ) from error
    from maskweave.studio.data_page import data_page
    from maskweave.studio.run_page import run_page

    page = Page(offered, bounds, scratch)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=CLEANED, fill_width=True) as blocks:
        desk, version = gr.State(Desk()), gr.State(0)
        with gr.Tabs():
            if offered.bundles:
                with gr.Tab("Generate"):
                    _generate_tab(page, desk, version)
            if offered.data:
                with gr.Tab("Data"):
                    data_page(page, desk, version)
            if offered.runs:
                with gr.Tab("Run"):
                    run_page(page)
    blocks.queue(max_size=bounds.waiting, api_open=False)
    return blocks


def _generate_tab(page: Page, desk: Any, version: Any) -> None:
    import gradio as gr

    from maskweave.studio.form import draw_form
    from maskweave.studio.search_panel import search_panel

    offered = page.offered
    first = next(iter(offered.bundles))
    with gr.Row():
        with gr.Column(min_width=320):
            bundle = gr.Dropdown([*offered.bundles], value=first, label="Bundle")
            inputs = gr.CheckboxGroup([], label="Inputs: what you give", elem_id="inputs")
            targets = gr.Dropdown(
                [], multiselect=True, label="Targets: what is generated, in this order", elem_id="targets"
            )
            form = gr.Column()
        with gr.Column(min_width=320):
            status = gr.HTML(IDLE)
            results = gr.HTML(elem_id="results")
            with gr.Row(visible=False) as after:
                keep = gr.Dropdown([], multiselect=True, label="Inputs of the next request", scale=3)
                use = gr.Button("Use as inputs", scale=1, min_width=120)
            with gr.Accordion("Python, command line and schedule of this request", open=True):
                hint = gr.HTML(elem_id="hint")
                with gr.Tab("Python"):
                    python = gr.Code(language="python", interactive=False, show_label=False)
                with gr.Tab("Command line"):
                    command = gr.Code(language="shell", interactive=False, show_label=False)
                with gr.Tab("Schedule"):
                    schedule = gr.Code(language="yaml", interactive=True, show_label=False, max_lines=24)
                    as_edited = gr.Checkbox(False, label="Run this schedule as it stands here")
            with gr.Accordion("Save and reopen", open=False):
                save = gr.Button("Save the request")
                saved = gr.File(label="Files to download", visible=False, elem_id="saved")
                reopen = gr.File(label="Open a saved request", elem_id="reopen", file_types=[".zip"], height=140)
                opened = gr.HTML()
            with gr.Accordion("Likelihood of an input", open=False):
                scored = gr.Dropdown([], label="Given all other inputs")
                score = gr.Button("Compute the likelihood")
                scores = gr.HTML()
            searched = search_panel(page) if offered.indexes else None

    shown = [bundle, inputs, targets, scored, version]

    def chosen(state: Desk) -> list[Any]:
        catalog = offered.bundle(state.bundle).catalog
        goals = [m.name for m in catalog.values() if m.is_target]
        return [
            gr.Dropdown(value=state.bundle),
            gr.CheckboxGroup([*catalog], value=state.inputs),
            gr.Dropdown(goals, value=state.targets),
            gr.Dropdown(
                [n for n in state.inputs if n in goals], value=next((n for n in state.inputs if n in goals), None)
            ),
            state.version,
        ]

    def begin(name: str, state: Desk) -> list[Any]:
        def work() -> list[Any]:
            state.choose(name, offered.bundle(name).catalog)
            return [*chosen(state), IDLE]

        return page.said(work, lambda words: [*[gr.skip() for _ in shown], words])

    # A dropdown also says that it was changed when Tab leaves it. The form is not drawn again then: it would lose what was typed, and the focus.
    def switch(name: str, state: Desk) -> list[Any]:
        return [gr.skip() for _ in (*shown, status)] if name == state.bundle else begin(name, state)

    def change(names: list[str], goals: list[str], state: Desk) -> list[Any]:
        if (names, goals) == (state.inputs, state.targets):
            return [gr.skip() for _ in shown[3:]]
        state.inputs, state.targets = list(names), list(goals)
        state.version += 1
        return chosen(state)[3:]

    def take(names: list[str], state: Desk) -> list[Any]:
        found = state.usable()
        state.hold({name: found[name] for name in names if name in found})
        return chosen(state)

    def opens(upload: Any, state: Desk) -> list[Any]:
        def work() -> list[Any]:
            if upload is None:
                return [gr.skip() for _ in shown] + [""]
            content = upload.path.read_bytes()
            request = open_request(content, offered.bundle(state.bundle).catalog, page.bounds, upload.name)
            state.reopen(request, offered.bundle(state.bundle).catalog)
            return [*chosen(state), f"<p>opened {len(request.inputs)} inputs and {len(request.targets)} targets</p>"]

        return page.said(work, lambda words: [*[gr.skip() for _ in shown], words])

    from maskweave.studio.widgets import sends_upload

    sends_upload(reopen)
    on(bundle.input, switch, [bundle, desk], [*shown, status], **HIDDEN)
    on(
        partial(gr.on, [inputs.input, targets.input]),
        guarded(change),
        [inputs, targets, desk],
        shown[3:],
        **HIDDEN,
    )
    on(use.click, guarded(take), [keep, desk], shown, **HIDDEN)
    on(reopen.upload, opens, [reopen, desk], [*shown, opened], **HIDDEN)

    outputs = [status, results, after, keep, python, command, schedule, hint]

    def generate(fields: Sequence[Field]) -> Callable[..., Iterator[list[Any]]]:
        def work(state: Desk, steps: str, edited: bool, *payloads: Any) -> Iterator[list[Any]]:
            started = time.monotonic()
            nothing = [gr.skip() for _ in outputs]
            try:
                with page.reading():
                    model = offered.bundle(state.bundle)
                    request = read_request(state, model.catalog, fields, payloads, steps if edited else "")
                    request.check(model, page.bounds)
                    plan = request.schedule_of(model)
                    texts = [
                        as_python(request, model.catalog, offered.bundles[state.bundle]),
                        as_command(request, model.catalog, offered.bundles[state.bundle]),
                    ]
                yield [
                    '<div class="mw-status" role="status">waiting for the model …</div>',
                    "", gr.Row(visible=False), gr.skip(), *texts, steps if edited else schedule_text(plan),
                    NAMES_FILES if request.has_files(model.catalog) else "",
                ]  # fmt: skip
                state.requests += 1
                for progress in run(model, request, page.bounds):
                    shown_html = progress_html(model.catalog, progress, list(request.targets))
                    status_line = status_html(progress, time.monotonic() - started, state.requests)
                    state.result, state.request = progress.best, request
                    yield [status_line, shown_html, *nothing[2:]]
                names = [*state.usable()]
                yield [gr.skip(), gr.skip(), gr.Row(visible=True), gr.Dropdown(names, value=names), *nothing[4:]]
            except Exception as error:
                yield [told(error), *nothing[1:]]

        return work

    def saves(fields: Sequence[Field]) -> Callable[..., list[Any]]:
        def work(state: Desk, steps: str, edited: bool, *payloads: Any) -> list[Any]:
            def save_files() -> list[Any]:
                model = offered.bundle(state.bundle)
                request = read_request(state, model.catalog, fields, payloads, steps if edited else "")
                folder = Path(tempfile.mkdtemp(dir=page.scratch))
                path = folder / "request.zip"
                path.write_bytes(save_request(request, model, offered.bundles[state.bundle]))
                return [gr.File(str(path), visible=True), ""]

            return page.said(save_files, lambda words: [gr.skip(), words])

        return work

    def scoring(fields: Sequence[Field]) -> Callable[..., str]:
        def work(name: str, state: Desk, *payloads: Any) -> str:
            def compute() -> str:
                model = offered.bundle(state.bundle)
                values = read_inputs(state, model.catalog, fields, payloads)
                with page.bounds.timed():
                    found = likelihood(model, values, name)
                return likelihood_html(name, found)

            return page.said(compute, lambda words: words)

        return work

    with form:

        @gr.render(inputs=[desk], triggers=[version.change], queue=False, **HIDDEN)
        def fields(state: Desk) -> None:
            try:
                with page.reading():
                    parts = draw_form(page, state, desk, version)
            except Exception as error:
                gr.HTML(told(error))
                return
            places, components = [place for place, _ in parts.fields], [part for _, part in parts.fields]
            asked = [desk, schedule, as_edited, *components]
            running = on(parts.generate.click, generate(places), asked, outputs, **HIDDEN, **MODEL)
            on(
                parts.stop.click,
                lambda: '<div class="mw-status" role="status">stopped</div>',
                None,
                [status],
                cancels=[running],
                queue=False,
            )
            on(save.click, saves(places), asked, [saved, opened])
            on(score.click, scoring(places), [scored, desk, *components], [scores], **MODEL)
            if searched is not None:
                searched.connect(places, components, desk)

    on(page_load(), lambda state: begin(first, state), [desk], [*shown, status], **HIDDEN)


def quiet() -> None:
    """Keeps the web server's own lines out of the terminal."""
    for name in ("httpx", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
