"""Shared by all tests: one torch thread (two on contended cores can be many times slower)."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from maskweave.modality import Catalogue, load_catalogue

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes_catalogue() -> Catalogue:
    return load_catalogue("scenes")
