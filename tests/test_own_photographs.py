"""Own photographs, those inside scikit-image and scikit-learn: folders, import, labels, tokenizers, tokens, training, generation."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.token_store import TokenData
from maskweave.modality.catalogs import load_catalog

NAMES = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "rocket",
)
RECIPE = """\
catalog: photos
data: {source: SOURCE, validation: 3, shard_size: 8}
tokenizers: {samples: 0, train: {steps: 3, batch_size: 4}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 32, target_tokens: 32}}
train: {steps: 4, batch_size: 4}
evaluate: {samples: 3, requests: [{inputs: [rgb], targets: [edges]}], sheets: [{inputs: [rgb], targets: [edges, metadata]}]}
"""


def write_photographs(root: Path) -> int:
    """Cut into quarters, some gray, all but some with a caption; returns how many."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    pictures = {name: getattr(data, name)() for name in NAMES}
    sample = load_sample_images()
    pictures |= {Path(name).stem: image for name, image in zip(sample.filenames, sample.images, strict=True)}
    count = 0
    for name, image in pictures.items():
        height, width = image.shape[0] // 2, image.shape[1] // 2
        for part, (y, x) in enumerate(((0, 0), (0, width), (height, 0), (height, width))):
            path = root / "rgb" / name / f"{part}.{'png' if part % 2 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[y : y + height, x : x + width]).save(path)
            count += 1
            if part:
                text = root / "caption" / name / f"{part}.txt"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text(f"part {part} of the picture {name.replace('_', ' ')}", encoding="utf-8")
    return count


def test_from_folders_to_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = write_photographs(tmp_path / "in")
    shards, run = tmp_path / "shards", tmp_path / "run"
    assert main(["data", "import", str(tmp_path / "in"), str(shards), "--shard-size", "20"]) == 0
    assert f"{count} samples in 3 shards" in capsys.readouterr().out
    assert main(["data", "label", str(shards)]) == 0
    assert f"edges {count}, palette {count}, metadata {count}" in capsys.readouterr().out
    (tmp_path / "own.yaml").write_text(RECIPE.replace("SOURCE", str(shards)), encoding="utf-8")
    assert main(["run", str(tmp_path / "own.yaml"), "--out", str(run)]) == 0

    photos = load_catalog("photos")
    tokens = TokenData(run / "tokens" / "train", photos)
    columns = tokens.columns(np.arange(len(tokens)))
    assert len(tokens) == count - 3
    assert columns["rgb"].rows.shape == (count - 3, 64, 192) and columns["rgb"].present.all()
    assert 0 < columns["caption"].present.sum() < count - 3, "those without a caption are kept"
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert [row["target"] for row in rows] == ["edges"] and (run / "report.html").exists()

    photo = tmp_path / "in" / "rgb" / "rocket" / "1.png"
    words = [
        "generate",
        str(run),
        "--input",
        f"rgb={photo}",
        "--target",
        "caption,edges,palette,metadata,rgb",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    with Image.open(tmp_path / "out" / "rgb.png") as picture:
        assert picture.size == (64, 64)
    said = capsys.readouterr().err
    for name in ("caption.txt", "edges.png", "edges.picture.png", "sheet.png"):
        assert (tmp_path / "out" / name).exists(), name
    for name in ("palette", "metadata"):  # after so few steps, nothing of them may be sound
        assert (tmp_path / "out" / f"{name}.json").exists() or f"{name}: skipped invalid parts" in said

    assert main(["evaluate", str(run), "--scenes-seed", "3"]) == 1
    assert "takes no seed; only endless sources such as scenes do" in capsys.readouterr().err
