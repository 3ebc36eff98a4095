"""Shared by the tests of the studio: an untrained bundle on disk, and what it offers."""

from pathlib import Path

import pytest
import small_bundle

from maskweave.generate.bundle import Bundle
from maskweave.studio.offered import Offered


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle with pictures (input only), depth, captions and a vector."""
    return small_bundle.save(small_bundle.small_bundle(), tmp_path_factory.mktemp("studio") / "small")


@pytest.fixture(scope="session")
def offered(bundle_folder: Path) -> Offered:
    return Offered([str(bundle_folder)], ["scenes"])


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path, offered: Offered) -> Bundle:
    return offered.bundle(str(bundle_folder))
