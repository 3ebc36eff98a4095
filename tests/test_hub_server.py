"""Bundles go to the Hub and come back, over a server on this machine that speaks the Hub's calls."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tokenizers as tiny
import torch
import yaml
from hub_server import TOKEN, Hub
from huggingface_hub import constants
from small_bundle import save, small_bundle

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.files import write_json
from maskweave.generate.bundle import Bundle
from maskweave.hub import upload_folder
from maskweave.modality.catalogs import catalog_from
from maskweave.modality.pretrained import find_pretrained
from maskweave.tokenizers.pretrained import origins_of_taken, taken_tokenizer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server in place of the Hub, with an empty cache and the right token."""
    made = Hub()
    use(made.url, tmp_path, monkeypatch)
    yield made
    made.close()


def use(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = save(small_bundle(), tmp_path_factory.mktemp("bundles") / "bundle")
    write_json(made / "evaluation.json", [])
    return made


def depth(bundle: Bundle) -> np.ndarray:
    return bundle.generate({"caption": "a red cube"}, ["depth"], seed=3)["depth"]


def test_a_bundle_goes_to_the_hub_and_comes_back(hub: Hub, folder: Path) -> None:
    bundle = maskweave.load(folder)
    assert bundle.push("own-er/a.bundle") == f"{hub.url}/own-er/a.bundle"
    bundle.push("own-er/a.bundle", license="apache-2.0", revision="v2", message="second")
    for place, license in (("own-er/a.bundle", ""), ("own-er/a.bundle@v2", "apache-2.0"), ("hf://own-er/a.bundle", "")):
        again = maskweave.load(place)
        assert again.provenance.license == license and np.array_equal(depth(again), depth(bundle))
    for place in ("own-er/a.bundle@v3", "own-er/other"):
        with pytest.raises(MaskweaveError, match=rf"{place}: .*has no such repository"):
            maskweave.load(place)
    found = hub.files("own-er/a.bundle", "v2")
    assert found is not None
    names = {"README.md", "evaluation.json", "modalities.yaml", "provenance.json", "model/model.safetensors"}
    assert names <= found[1].keys()
    head = yaml.safe_load(found[1]["README.md"].decode().split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["library_name"] == "maskweave"
    assert any("/lfs/" in call for call in hub.calls), "weights are sent apart from the commit"


def test_a_refused_token_and_a_wrong_name_give_one_line(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    bundle = maskweave.load(folder)
    with pytest.raises(
        MaskweaveError, match=r"^own-er/x: the Hugging Face Hub refused the upload \(.*hf auth login.*$"
    ):
        bundle.push("own-er/x")
    with pytest.raises(MaskweaveError, match="'no-owner' is not a repository id of the Hub; expected OWNER/NAME"):
        bundle.push("no-owner")


@pytest.mark.parametrize("offline", [False, True])
def test_off_line_there_is_one_line(
    offline: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens at the address; or the library is told to stay off-line."""
    use("http://127.0.0.1:9", tmp_path, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(MaskweaveError, match=r"the Hugging Face Hub cannot be reached \(") as loading:
        maskweave.load("own-er/x")
    with pytest.raises(
        MaskweaveError, match=r"^own-er/x: the Hugging Face Hub cannot be reached \(.*save the bundle to a"
    ) as pushing:
        maskweave.load(folder).push("own-er/x")
    for error in (loading, pushing):
        assert (
            "\n" not in str(error.value) and "An error happened" not in str(error.value) and len(str(error.value)) < 700
        )


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_off_line_nothing_is_tried_again(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(url, tmp_path, monkeypatch)
    looked_up: list[str] = []

    def addresses(host: str, *words: Any, **options: Any) -> Any:
        looked_up.append(host)
        if host.endswith(".invalid"):
            raise socket.gaierror(-2, "Name or service not known")
        return known(host, *words, **options)

    known = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    with pytest.raises(MaskweaveError, match=r"^own-er/x: .*the Hugging Face Hub cannot be reached \(.*; expected .*$"):
        maskweave.load("own-er/x")
    assert 1 <= len(looked_up) <= 4


def test_a_full_disk_is_no_fault_of_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(
        MaskweaveError, match=r"the download from the Hugging Face Hub failed \(\[Errno 28\] No space left on device\)"
    ):
        maskweave.load("own-er/x")


def test_what_was_loaded_before_is_loaded_off_line(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maskweave.load(folder).push("own-er/kept")
    online = maskweave.load("own-er/kept")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert maskweave.load("own-er/kept").folder == online.folder


def test_uploads_of_folders_are_what_is_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "large").write_bytes(content)
    (tmp_path / "out" / "small.txt").write_text("text", encoding="utf-8")
    assert upload_folder(tmp_path / "out", "a/b", False, "main", "first").endswith("/a/b")
    found = hub.files("a/b", "main")
    assert found is not None and found[1] == {"model/large": content, "small.txt": b"text"}


def test_a_new_upload_replaces_all_files_of_the_bundle(hub: Hub, tmp_path: Path) -> None:
    first, second = (
        ("calibration.yaml", "model/old.json", "model/a/b", "tokenizers/depth/x", "notes.txt"),
        ("model/a/b",),
    )
    for folder, paths in (("first", first), ("second", second)):
        for path in paths:
            (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / path).write_text(folder, encoding="utf-8")
        upload_folder(tmp_path / folder, "a/b", False, "main", folder)
    found = hub.files("a/b", "main")
    assert found is not None and found[1] == {"model/a/b": b"second", "notes.txt": b"first"}


@pytest.mark.parametrize("name", ["me/a--b", "me/model.", "me/x.git", "me/" + 100 * "x"])
def test_names_that_only_the_hub_refuses_give_one_line(name: str, hub: Hub, folder: Path) -> None:
    with pytest.raises(MaskweaveError, match="is not a repository id of the Hub"):
        maskweave.load(folder).push(name)
    with pytest.raises(MaskweaveError, match="is not a repository id of the Hub"):
        upload_folder(folder, name, False, "main", "first")
    assert not hub.calls


def test_tokenizers_are_taken_from_the_hub_by_their_ids(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """A published one with its license, and the network of a bundle; pickled weights beside them stay there."""
    tiny.vq_model(tmp_path / "vq")
    (tmp_path / "vq" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    (tmp_path / "vq" / "weights.bin").write_bytes(b"pickled")
    upload_folder(tmp_path / "vq", "own-er/vq", False, "main", "first")
    picture = {"type": "image", "size": [16, 16], "channels": 3}
    content = {
        "id": 1,
        "kind": "grid",
        "grid": [4, 4],
        "value": picture,
        "tokenizer": {"external": "own-er/vq", "codes": 16},
    }
    entry = catalog_from({"modalities": {"photo": content}}, "mine.yaml")["photo"]
    values = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    taken = taken_tokenizer(entry)
    local = taken_tokenizer(catalog_from({"modalities": {"photo": {**content, "tokenizer": {"external": str(tmp_path / "vq"), "codes": 16}}}}, "mine.yaml")["photo"])  # fmt: skip
    assert taken is not None and local is not None and torch.equal(taken.encode(values), local.encode(values))
    (origin,) = origins_of_taken(entry, "tokenizers/photo")
    assert (origin.place, origin.license) == ("own-er/vq", "mit")
    assert not any("weights.bin" in call for call in hub.calls)

    maskweave.load(folder).push("own-er/bundle", license="mit")
    name = sorted(path.parent.name for path in (folder / "tokenizers").glob("*/model.safetensors"))[0]
    assert (find_pretrained(f"own-er/bundle#{name}") / "model.safetensors").read_bytes() == (folder / "tokenizers" / name / "model.safetensors").read_bytes()  # fmt: skip
