"""The picture of the studio in docs/studio.md: a fixed request to the bundle that ships.

`python tests/studio/test_studio_picture.py` writes docs/studio.png, and a picture of a narrow window to look at, build/studio-narrow.png.
"""

import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent)]  # where this file is run by itself
from browser_window import CHROMIUM, Window, need_browser  # noqa: E402

from maskweave.studio.bounds import Bounds  # noqa: E402
from maskweave.studio.offered import Offered  # noqa: E402
from maskweave.studio.serve import serve  # noqa: E402

ROOT = Path(__file__).parents[2]
CAPTION = "2 objects: a large red cube and a small green sphere. the red cube is left of the green sphere."
TARGETS = ["boxes", "tok_rgb", "depth", "semseg"]
SIZES = {"studio": (1250, 1000), "studio-narrow": (400, 2200)}
MOST_BYTES = 400_000


def write_pictures(folders: dict[str, Path]) -> None:
    """Writes the pictures of `SIZES`, each into its folder."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "run").mkdir()
        (Path(name) / "run" / "recipe.yaml").touch()
        page = serve(Offered(["scenes", f"{name}/run"], ["scenes"]), Bounds(), blocks=False)
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            context = chromium.new_context()
            for picture, folder in folders.items():
                window = Window(context, page.local_url, *SIZES[picture])
                window.target("tok_rgb", given=False)
                for target in TARGETS:
                    window.target(target)
                window.write("caption", CAPTION)
                window.generate()
                window.finished()
                assert window.cards() == TARGETS
                window.page.mouse.move(0, 0)  # away from the button, which would be shown as pointed at
                window.page.wait_for_timeout(500)
                folder.mkdir(parents=True, exist_ok=True)
                window.page.screenshot(path=folder / f"{picture}.png")
            chromium.close()
        page.close()


@pytest.mark.slow
def test_the_pictures_are_written(tmp_path: Path) -> None:
    need_browser()
    write_pictures(dict.fromkeys(SIZES, tmp_path))
    for name, size in SIZES.items():
        assert Image.open(tmp_path / f"{name}.png").size == size
    stored = ROOT / "docs" / "studio.png"
    assert Image.open(stored).size == SIZES["studio"] and stored.stat().st_size < MOST_BYTES


if __name__ == "__main__":
    write_pictures({"studio": ROOT / "docs", "studio-narrow": ROOT / "build"})
