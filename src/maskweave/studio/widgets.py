"""The components of the editors: one function for each widget that `studio.editors` names. Gradio is imported when a page is built."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.studio.editors import Upload

TEMPLATE = '<div class="mw-widget"></div>'
FOLDER = Path(__file__).parent
WATCH = "typeof watch === 'undefined' ? () => {} : watch"
"""Gradio's function that says when a setting of a widget changes; the first versions 6 have none."""


def head() -> str:
    """Returns the script of the page's own widgets, for the head of the page."""
    return f"<script>{(FOLDER / 'widgets.js').read_text(encoding='utf-8')}</script>"


def style() -> str:
    """Returns the style sheet of the page."""
    return (FOLDER / "page.css").read_text(encoding="utf-8")


def component(widget: str, name: str, payload: Any, settings: dict[str, Any]) -> Any:
    """Returns the Gradio component of an editor's widget.

    Args:
        name: label.
        payload: what it shows first; None: nothing.
        settings: of the editor.
    """
    part = COMPONENTS[widget](name, payload, settings)
    part.elem_id = f"input-{name}-{widget}"
    return part


def own(kind: str, name: str, payload: Any, settings: dict[str, Any], background: str = "") -> Any:
    """Returns one of the page's own widgets, `maskweave.KIND` of widgets.js."""
    import gradio as gr

    function = {"mask": "paint", "draw": "paint"}.get(kind, kind)
    return gr.HTML(
        value=payload or "",
        label=name,
        show_label=True,
        container=True,
        html_template=TEMPLATE,
        js_on_load=f"maskweave.{function}(element, props, trigger, {WATCH})",
        elem_id=f"region-{name}",
        name=name,
        mode=kind,
        background=background,
        **settings,
    )


def sends_upload(part: Any) -> Any:
    """Makes a component send the file as it was uploaded, undecoded: the value types read files, within their limits. Gradio checks
    only those paths that a window sends with `meta`, so `_upload` checks all of them."""
    part.preprocess = lambda payload: None if payload is None else _upload(payload)
    return part


def _upload(payload: Any) -> Upload | None:
    first = payload[0] if isinstance(payload, list) else payload
    root = getattr(first, "root", None)
    if isinstance(root, list):
        first = root[0] if root else None
    path = getattr(first, "path", None)
    if path is None:
        path = getattr(getattr(first, "video", None), "path", None)
    return None if not path else Upload(_uploaded(path), getattr(first, "orig_name", None) or Path(path).name)


def _uploaded(path: str) -> Path:
    """Returns the path of a file in the folder of the uploads.

    Raises:
        MaskweaveError: it is elsewhere, or no file.
    """
    from gradio.utils import get_upload_folder

    try:
        found = Path(path).resolve()
        if found.is_relative_to(Path(get_upload_folder()).resolve()) and found.is_file():
            return found
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, or a null character
        pass
    raise MaskweaveError("the file was not uploaded; choose it again")


def _path(payload: Any) -> str | None:
    """Returns the path of an upload, to show it again; None if it was removed."""
    return str(payload.path) if isinstance(payload, Upload) and payload.path.is_file() else None


def _picture(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr

    return sends_upload(
        gr.Image(
            _path(payload),
            label=f"{name}: picture",
            sources=["upload", "webcam", "clipboard"],
            type="filepath",
            height=220,
            image_mode=None,
        )
    )


def _sound(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr

    return sends_upload(
        gr.Audio(
            _path(payload),
            label=f"{name}: sound",
            sources=["upload", "microphone"],
            type="filepath",
            interactive=True,
        )
    )


def _video(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr
    from gradio.data_classes import FileData
    from gradio.processing_utils import move_files_to_cache

    part = gr.Video(label=f"{name}: video", sources=["upload", "webcam"], interactive=True)
    if (path := _path(payload)) is not None:
        # Given to the constructor, it would be converted, and the request would read that.
        part.value = move_files_to_cache(FileData(path=path).model_dump(), part, postprocess=True)
    return sends_upload(part)


def _file(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr

    return sends_upload(gr.File(_path(payload), label=f"{name}: file", height=140, interactive=True))


def _text(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr

    return gr.Textbox(payload or "", label=name, lines=2, max_length=20_000, interactive=True)


def _choice(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr

    return gr.Dropdown(settings["classes"], value=payload, label=name, interactive=True)


def _choices(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr

    return gr.Dropdown(settings["classes"], value=payload or [], multiselect=True, label=name, interactive=True)


def _number(name: str, payload: Any, settings: dict[str, Any]) -> Any:
    import gradio as gr

    label = f"{name} ({settings['unit']})" if settings["unit"] else name
    if not settings["range"]:
        return gr.Number(payload, label=label, interactive=True)
    low, high = settings["range"]
    return gr.Slider(low, high, value=(low + high) / 2 if payload is None else payload, label=label, interactive=True)


COMPONENTS: dict[str, Callable[[str, Any, dict[str, Any]], Any]] = {
    "picture": _picture,
    "sound": _sound,
    "video": _video,
    "file": _file,
    "text": _text,
    "choice": _choice,
    "choices": _choices,
    "number": _number,
    **{
        kind: (lambda name, payload, settings, kind=kind: own(kind, name, payload, settings))  # type: ignore[misc]
        for kind in ("paint", "draw", "boxes", "colors", "sliders")
    },
}
