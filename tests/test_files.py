"""Writing aside, and reading text files."""

import errno
import os

import pytest

from maskweave.errors import FullDisk, MaskweaveError
from maskweave.files import read_json, read_yaml, write_aside, write_json


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    with pytest.raises(RuntimeError), write_aside(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert read_json(target) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_replaces_a_folder_as_a_whole(tmp_path):
    target = tmp_path / "run"
    for content in ("one", "two"):
        with write_aside(target) as aside:
            aside.mkdir()
            (aside / content).write_text(content)
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["run"]


def test_a_full_disk_is_said_clearly_and_keeps_the_old_folder(tmp_path):
    target = tmp_path / "run"
    with write_aside(target) as aside:
        aside.mkdir()
        (aside / "whole").write_text("1")
    with pytest.raises(FullDisk, match="no space left while writing .*run"), write_aside(target) as aside:
        aside.mkdir()
        (aside / "half").write_text("2")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(target) == ["whole"]
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "not valid YAML"),
        (b"- 1", "expected a mapping"),
        (b"a:\n  x: 1\n  y: 2\n  x: 3\n", "not valid YAML: the key 'x' stands there twice; remove one.*line 4"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (b"!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_yaml_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(MaskweaveError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


def test_yaml_may_share_and_merge(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_yaml(path)["b"] == {"x": 3, "y": 2}


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MaskweaveError, match="nothing.yaml: no such file"):
        read_yaml(tmp_path / "nothing.yaml")
