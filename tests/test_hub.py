"""Places: folders here, or repositories on the Hub, which is asked for nothing that is meant to be here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.hub import folder_of, upload_folder


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What the Hub was asked for; it has everything."""
    monkeypatch.chdir(tmp_path)
    found: list[tuple[str, str | None]] = []

    def download(name: str, revision: str | None = None, allow_patterns: Any = None) -> str:
        assert allow_patterns == ["*.json"]
        found.append((name, revision))
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return found


def find(place: str | Path, revision: str | None = None) -> Path:
    return folder_of(place, ["*.json"], "a bundle", revision)


def test_folders_here_come_first(asked: list, tmp_path: Path) -> None:
    for place in ("owner/name", "rgb@224", "bundle"):
        (tmp_path / place).mkdir(parents=True)
        assert find(place) == Path(place) and find(tmp_path / place) == tmp_path / place
    with pytest.raises(MaskweaveError, match="bundle: a local folder, which has no revisions; leave out 'v1'"):
        find("bundle", "v1")
    assert not asked


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("bundles/demp", r"no such folder in .*did you mean 'bundles/demo'\? \(write hf://bundles/demp if you mean the Hub\)"),
        ("bundles/other/deep", "no such folder; there is no 'bundles/other' either; expected a bundle"),
        ("runs/demo", "no such folder; there is no 'runs' either"),
        ("demo", r"no such folder in \S+; expected a bundle"),
        ("bundles/de mo", r"no such folder in \S+; did you mean 'bundles/demo'\?; expected a bundle"),
        ("./owner/name", "no such folder; there is no 'owner' either"),
        ("/nothing/here", "no such folder; there is no '/nothing' either"),
        ("owner/na me", "no such folder; there is no 'owner' either"),
        ("a/b/c", "no such folder; there is no 'a/b' either"),
        ("notes.txt", "notes.txt: is a file, not a folder"),
        ("notes.txt/x", "notes.txt"),
        ("hf://name", "is not a repository id of the Hub, such as hf://owner/name"),
        ("", "expected a bundle|no such"),
    ],
)  # fmt: skip
def test_what_is_meant_to_be_here_is_not_asked_of_the_hub(
    asked: list, tmp_path: Path, place: str, message: str
) -> None:
    (tmp_path / "bundles" / "demo").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    if place == "":
        assert find(place) == Path()  # the folder that one stands in
        return
    with pytest.raises(MaskweaveError, match=message):
        find(place)
    assert not asked


def test_repositories_and_their_revisions(asked: list, tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    for place, revision in (
        ("owner/name", None),
        ("owner/name@v1.2", None),
        ("owner/name", "v1.2"),
        ("owner/name@v1.2", "v1.2"),
        ("owner/4M-21_XL@refs/pr/3", None),
        ("hf://bundles/x@main", None),
    ):
        assert find(place, revision) == tmp_path / "cache"
    assert asked == [
        ("owner/name", None),
        ("owner/name", "v1.2"),
        ("owner/name", "v1.2"),
        ("owner/name", "v1.2"),
        ("owner/4M-21_XL", "refs/pr/3"),
        ("bundles/x", "main"),
    ]
    with pytest.raises(MaskweaveError, match="contains the revision 'v1', but revision is 'v2'; give only one"):
        find("owner/name@v1", "v2")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (LocalEntryNotFoundError("no network"), "cannot be reached"),
        (OSError("timed out"), "cannot be reached"),
        (HFValidationError("no id"), "has no such repository"),
    ],
)
def test_what_the_hub_answers_is_in_the_message(
    asked: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, fault: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        MaskweaveError,
        match=f"bundles/x: there is no folder 'bundles' in {tmp_path}, so it was looked up on the Hub: the Hugging Face Hub {fault} .{error}.*expected a bundle",
    ):
        find("bundles/x")
    with pytest.raises(MaskweaveError, match=f"hf://bundles/x: the Hugging Face Hub {fault}"):
        find("hf://bundles/x")


def test_bundles_are_opened_at_a_revision(tiny_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, revision, **_: asked.append((name, revision)) or str(tiny_run),
    )
    assert maskweave.load("owner/name", revision="v1.2").folder == tiny_run
    assert maskweave.load("owner/name@v1.3").folder == tiny_run
    assert asked == [("owner/name", "v1.2"), ("owner/name", "v1.3")]


@pytest.mark.parametrize("place", [3, b"a", "a\0b", "x" * 256, "a/" * 2047 + "ab"])
def test_places_that_can_be_no_path(place: Any) -> None:
    with pytest.raises(MaskweaveError, match=r"^the place is .*; "):
        find(place)


def test_the_longest_path_is_looked_for() -> None:
    with pytest.raises(MaskweaveError, match="no such folder"):
        find("a/" * 2047 + "a")


@pytest.mark.parametrize(("place", "hint"), [("bundles/dxmy", "did you mean 'bundles/demo'"), ("bundles/dxyz", "")])
def test_names_that_share_half_of_their_letters_are_near(asked: list, tmp_path: Path, place: str, hint: str) -> None:
    (tmp_path / "bundles" / "demo").mkdir(parents=True)
    with pytest.raises(MaskweaveError, match="no such folder") as caught:
        find(place)
    assert ("did you mean" in str(caught.value)) == bool(hint) and hint in str(caught.value)


def test_only_folders_are_near(asked: list, tmp_path: Path) -> None:
    (tmp_path / "bundles" / "demo").mkdir(parents=True)
    (tmp_path / "bundles" / "demos").touch()
    with pytest.raises(MaskweaveError, match="did you mean 'bundles/demo'"):
        find("bundles/demos_")
    with pytest.raises(MaskweaveError, match=r"^demu: no such folder in '[^']*'; expected a bundle$"):
        find("demu")  # without a slash it is no name on the Hub


class Api:
    """The Hub's calls for an upload, which are noted; the commit fails with an error if there is one."""

    calls: ClassVar[list[tuple[Any, ...]]] = []
    error: ClassVar[Exception | None] = None

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
        self.calls.append(("repo", name, private, exist_ok))
        return f"https://hub/{name}"

    def create_branch(self, name: str, branch: str, exist_ok: bool) -> None:
        self.calls.append(("branch", name, branch, exist_ok))

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("folder", options))
        if self.error is not None:
            raise self.error


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(Api, "calls", [])
    monkeypatch.setattr(Api, "error", None)
    return Api


@pytest.mark.parametrize(("revision", "private"), [("main", False), ("v2", True)])
def test_an_upload_makes_what_is_missing(revision: str, private: bool, api: type[Api], tmp_path: Path) -> None:
    assert upload_folder(tmp_path, "me/x", private, revision, "why") == "https://hub/me/x"
    branch = [] if revision == "main" else [("branch", "me/x", "v2", True)]
    content = {
        "repo_id": "me/x", "folder_path": tmp_path, "revision": revision, "commit_message": "why",
        "delete_patterns": [
            "modalities.yaml", "recipe.yaml", "calibration.yaml", "provenance.json", "evaluation.json", "model/*", "tokenizers/*",
        ],
    }  # fmt: skip
    assert api.calls == [("repo", "me/x", private, True), *branch, ("folder", content)]


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "log in with"), (403, "log in with"), (400, "try again"), (402, "try again"), (404, "try again"), (500, "try again")],
)  # fmt: skip
def test_what_to_do_after_a_refused_upload(
    status: int, advice: str, api: type[Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    monkeypatch.setattr(api, "error", HfHubHTTPError("no\n  and " + "x" * 600, response=response))  # type: ignore[arg-type]
    with pytest.raises(MaskweaveError, match=advice) as caught:
        upload_folder(tmp_path, "me/x", False, "main", "why")
    reason = "no and " + "x" * 493  # in one line, and 500 characters of it
    assert str(caught.value).startswith(f"me/x: the Hugging Face Hub refused the upload ({reason}); {advice}")
