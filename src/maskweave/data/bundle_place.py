"""Where a bundle is: a folder, a URL, a repository of the Hugging Face Hub, or a name of one that ships with the package."""

import os
from pathlib import Path

from maskweave.data.mirror import local_place
from maskweave.data.remote import is_remote
from maskweave.hub import PREFIX, folder_of
from maskweave.provenance import FILE as PROVENANCE
from maskweave.shipped import check_no_tokenizer, shipped_bundle

CALIBRATION = "calibration.yaml"
BUNDLE_FILES = [
    "modalities.yaml",
    "recipe.yaml",
    CALIBRATION,
    PROVENANCE,
    "evaluation.json",
    "model/*",
    "tokenizers/*/*.json",
    "tokenizers/*/*.safetensors",
]
"""What is fetched from the Hub and from URLs."""
EXPECTED = "the folder that 'maskweave run' made, a bundle, or the Hub id of one"


def bundle_folder(place: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Returns the folder of a bundle; what is not on this machine is copied. The name of one that ships with the package is looked up last.

    Args:
        place: a folder, a URL (`s3://bucket/name`, read through the cache of this machine), or an id on the Hub (`owner/name`, `owner/name@REVISION`).
        revision: branch, tag or commit on the Hub, if the id contains none.

    Raises:
        MaskweaveError: there is no such folder, or the Hub or storage cannot be reached.
    """
    if isinstance(place, str) and is_remote(place) and not place.startswith(PREFIX):
        place = local_place(place, BUNDLE_FILES)
    check_no_tokenizer(place)
    inside = None if revision else shipped_bundle(place)
    return inside if inside and not Path(place).is_dir() else folder_of(place, BUNDLE_FILES, EXPECTED, revision)
