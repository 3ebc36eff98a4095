"""A real S3 server on loopback (moto's), through a proxy that drops, delays and truncates answers."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from remote_storage import Faults, faulty_proxy
from test_remote import SHARDS, batches, write_tokens
from tiny_catalog import same

from maskweave.data import remote
from maskweave.data.publishing import publish
from maskweave.data.remote import UNFINISHED, find_files, list_files, state_of
from maskweave.errors import MaskweaveError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def server(tokens: Path) -> Iterator[str]:
    """A server with the tokens in s3://bucket/tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        moto = ThreadedMotoServer("127.0.0.1", 0)
        moto.start()
        address = f"http://127.0.0.1:{moto._server.server_port}"  # type: ignore[union-attr]
        client = boto3.client("s3", endpoint_url=address)
        client.create_bucket(Bucket="bucket")
        for path in tokens.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", f"tokens/{path.relative_to(tokens).as_posix()}")
        yield address
        moto.stop()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.02)


def at(address: str, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Use a server, as a user does: by fsspec's own settings."""
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": address, **settings})


def test_tokens_on_s3_give_the_same_batches(server: str, tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(server, monkeypatch)
    found, expected = batches("s3://bucket/tokens"), batches(tokens)
    assert all(same(found[i], expected[i]) for i in range(15))
    assert len(list_files("s3://bucket/tokens")) == 2 + SHARDS * 7
    with pytest.raises(MaskweaveError, match="s3://bucket/tokens/nothing: no such file"):
        state_of("s3://bucket/tokens/nothing")


def test_a_failing_server_changes_nothing(server: str, tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides our own attempts, s3fs and botocore try again, too."""
    faults = Faults(drop=0.1, delay=0.05, cut=0.15, refuse=0.1, seconds=1.5, seed=1)
    expected = batches(tokens)
    with faulty_proxy(server, faults) as worse:
        at(
            worse,
            monkeypatch,
            config_kwargs={"read_timeout": 1.0, "connect_timeout": 1.0, "retries": {"max_attempts": 0}},
        )
        found = batches("s3://bucket/tokens")
        assert all(same(found[i], expected[i]) for i in np.random.default_rng(0).permutation(15))
    assert min(faults.counts[kind] for kind in ("drop", "delay", "cut", "refuse")) >= 2, faults.counts


def test_copies_to_a_failing_server_are_complete_or_refused(
    server: str, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {p.relative_to(tokens).as_posix(): p.stat().st_size for p in tokens.rglob("*") if p.is_file()}
    faults = Faults(drop=0.1, delay=0.05, cut=0.1, refuse=0.1, seconds=1.5, seed=2)
    with faulty_proxy(server, faults) as worse:
        at(
            worse,
            monkeypatch,
            config_kwargs={"read_timeout": 1.0, "connect_timeout": 1.0, "retries": {"max_attempts": 0}},
        )
        assert publish(tokens, "s3://bucket/copy") == len(whole)
    assert min(faults.counts[kind] for kind in ("drop", "delay", "cut", "refuse")) >= 2, faults.counts
    at(server, monkeypatch)
    assert {name: state.size for name, state in list_files("s3://bucket/copy").items()} == whole
    assert publish(tokens, "s3://bucket/copy") == len(whole), "what is there already is compared"
    found, expected = batches("s3://bucket/copy"), batches(tokens)
    assert all(same(found[i], expected[i]) for i in range(15))

    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    gone = Faults(refuse=0.5, seed=3)  # an upload that gives up in the middle
    with faulty_proxy(server, gone) as worse:
        at(worse, monkeypatch, config_kwargs={"retries": {"max_attempts": 0}})
        monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
        for _ in range(20):
            with pytest.raises(MaskweaveError, match="cannot be reached"):
                publish(tokens, "s3://bucket/half")
            at(server, monkeypatch)
            half = find_files("s3://bucket/half")
            if len(half) > 1:
                break
            at(worse, monkeypatch, config_kwargs={"retries": {"max_attempts": 0}})
    assert UNFINISHED in half and 1 < len(half) < len(whole) + 1 and "index.json" not in half
    with pytest.raises(MaskweaveError, match="s3://bucket/half: is not complete"):
        list_files("s3://bucket/half")
    versions = {name: state.version for name, state in half.items() if name != UNFINISHED}
    assert publish(tokens, "s3://bucket/half") == len(whole)
    now = list_files("s3://bucket/half")
    assert {name: state.size for name, state in now.items()} == whole
    assert all(now[name].version == version for name, version in versions.items()), "what was there is not sent again"
