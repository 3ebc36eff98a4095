"""Uploads: the widgets of files pass on what was uploaded, and no other file of this machine."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskweave.errors import MaskweaveError
from maskweave.studio.editors import Upload
from maskweave.studio.widgets import component

pytest.importorskip("gradio")

WIDGETS = ("picture", "sound", "video", "file")


def sent(widget: str, path: Path | str, **facts: Any) -> Any:
    """What a component passes on of the payload that a window sends."""
    part = component(widget, "seen", None, {})
    payload = {"path": str(path), **facts}
    model = getattr(part, "data_model", None)
    if widget == "file":
        from gradio.data_classes import FileData

        model = FileData
    assert model is not None
    return part.preprocess(model(**payload))


@pytest.mark.parametrize("widget", WIDGETS)
def test_only_uploads_are_passed_on(widget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads" / "a").mkdir(parents=True)
    given, secret = tmp_path / "uploads" / "a" / "mine.png", tmp_path / "secret.png"
    for path in (given, secret):
        path.write_bytes(b"x")
    link = tmp_path / "uploads" / "link.png"
    link.symlink_to(secret)
    assert sent(widget, given, orig_name="my own.png") == Upload(given.resolve(), "my own.png")
    for forged in (secret, link, given.parent, given.with_name("gone.png"), f"{given.parent}/../../secret.png", "a\0b"):
        with pytest.raises(MaskweaveError, match="the file was not uploaded; choose it again"):
            sent(widget, forged)


@pytest.mark.parametrize("widget", WIDGETS)
def test_an_upload_is_shown_again_as_it_is(widget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of a kind that browsers cannot play, too: it is not converted, so that a request reads what was uploaded."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    given = tmp_path / "a" / "mine.gif"
    given.parent.mkdir()
    frames = [Image.new("RGB", (16, 16), color) for color in ("black", "white")]
    frames[0].save(given, save_all=True, append_images=frames[1:])
    content = given.read_bytes()
    part = component(widget, "seen", Upload(given, "mine.gif"), {})
    assert part.value["path"] == str(given) and given.read_bytes() == content
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [given]
    given.unlink()
    assert component(widget, "seen", Upload(given, "mine.gif"), {}).value is None
