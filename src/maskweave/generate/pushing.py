"""Uploads a bundle with its model card to the Hugging Face Hub."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from maskweave import __version__
from maskweave.bundle.io import save_bundle
from maskweave.hub import check_hub_id, upload_folder
from maskweave.provenance import with_license
from maskweave.report.card import EVALUATION

if TYPE_CHECKING:
    from maskweave.generate.bundle import Bundle


def push(bundle: "Bundle", repository: str, license: str, private: bool, revision: str, message: str) -> str:
    """See `Bundle.push`."""
    check_hub_id(repository)
    with tempfile.TemporaryDirectory() as temporary:
        folder, provenance = Path(temporary) / "bundle", with_license(bundle.provenance, license)
        save_bundle(bundle.catalog, bundle.model, bundle.tokenizers, folder, bundle.calibration, provenance)
        if bundle.folder is not None and (bundle.folder / EVALUATION).is_file():
            shutil.copyfile(bundle.folder / EVALUATION, folder / EVALUATION)
        (folder / "README.md").write_text(bundle.card(repository, license), encoding="utf-8")
        return upload_folder(folder, repository, private, revision, message or f"maskweave {__version__}")
