"""Writing aside, and reading text files."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from maskweave import files
from maskweave.errors import BadSample, FullDisk, MaskweaveError
from maskweave.files import (
    claim_record,
    max_text_mb,
    parse_yaml,
    read_json,
    read_json_lines,
    read_yaml,
    short_name,
    write_aside,
    write_json,
    write_json_lines,
)
from maskweave.modality.catalogs import catalog_from
from maskweave.values.files import read_json_value


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
        (b"a:\n  x: 1\n  y: 2\n  x: 3\n", "not valid YAML: the key 'x' appears twice; remove one.*line 4"),
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


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGES = "m0: &m0 {k0: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}], k{n}: 1}}\n" for n in range(1, 9)
)


@pytest.mark.parametrize(("items", "aliases", "is_read"), [(1000, 100, True), (10, 10_000, True), (11, 9091, False)])
def test_values_that_aliases_repeat(items, aliases, is_read):
    """100,000 are read, 100,001 are not."""
    text = f"a: &a [{', '.join(['0'] * items)}]\nb: [{', '.join(['*a'] * aliases)}]"
    if is_read:
        assert parse_yaml(text, "here")["b"] == [[0] * items] * aliases
        return
    with pytest.raises(MaskweaveError, match="repeat more than 100,000 values"):
        parse_yaml(text, "here")


@pytest.mark.parametrize("text", [BOMB, MERGES], ids=["aliases", "merges"])
def test_aliases_that_multiply_are_refused_before_anything_is_built(tmp_path, text, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert len(text) < 800
    built = []
    monkeypatch.setattr(yaml.SafeLoader, "construct_document", lambda self, node: built.append(node))
    with pytest.raises(
        MaskweaveError, match=r"aliases \(\*\) and merges \(<<\) repeat more than 100,000 values"
    ) as caught:
        read_yaml(path)
    assert not built and len(str(caught.value)) < 1000


def test_a_catalog_with_a_bomb_in_it_is_refused_shortly(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "a: &a [" + ", ".join(["x"] * 9) + "]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nmodalities: {rgb: *c}\n"
    )
    content = read_yaml(path)
    assert len(content["modalities"]["rgb"]) == 4
    with pytest.raises(MaskweaveError, match="expected keys and values, found") as caught:
        catalog_from({"modalities": content["modalities"]}, "here")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: {c: *a}}", "a: &a {<<: *a}"])
def test_yaml_that_is_part_of_itself(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(MaskweaveError, match="refers to a value that contains it"):
        read_yaml(path)


def test_a_merged_mapping_that_itself_merges(tmp_path):
    """The inner mapping is merged elsewhere before it is built, which must not make its overridden key a duplicate."""
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1}\ndeep: {deeper: {b: &b {<<: *a, x: 2}}}\nc: {<<: *b, y: 3}\n")
    content = read_yaml(path)
    assert content["c"] == {"x": 2, "y": 3} and content["deep"]["deeper"]["b"] == {"x": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 0x" + "f" * 2000, "a whole number of 8,000 bits"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: !!int ''", "a value does not fit its tag"),
        ("a: !!bool x", "a value does not fit its tag"),
        ("a: 2020-99-99", "not valid YAML: month must be in 1..12"),
    ],
)
def test_yaml_whose_values_cannot_be(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(MaskweaveError, match=message):
        read_yaml(path)


def test_large_files_are_refused_unless_a_setting_or_the_caller_allows_them(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(["x" * 2**20] * 2))
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "1")
    with pytest.raises(MaskweaveError, match=r"a JSON file of 2 MB, expected at most 1 MB.*MASKWEAVE_MAX_TEXT_MB to 3"):
        read_json(path)
    assert len(read_json(path, limit=None)) == len(read_json(path, limit=2.5)) == 2
    with pytest.raises(MaskweaveError, match="expected at most 1.5 MB"):
        read_json(path, limit=1.5)
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "3")
    assert len(read_json(path)) == len(read_json(path, limit=1.5)) == 2
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "many")
    with pytest.raises(MaskweaveError, match="MASKWEAVE_MAX_TEXT_MB is 'many'; expected a number of megabytes"):
        read_json(path)
    monkeypatch.delenv("MASKWEAVE_MAX_TEXT_MB")
    assert max_text_mb() == 64


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_record_is_written_once_and_then_compared(tmp_path, ending):
    path = tmp_path / "results" / f"record.{ending}"
    assert claim_record(path, {"a": 1, "b": [2]}, "results", {"note": "x"}) == {"a": 1, "b": [2], "note": "x"}
    assert claim_record(path, {"a": 1, "b": [2]}, "results", {"note": "y"})["note"] == "x"
    with pytest.raises(MaskweaveError, match=r"results: holds results made with other settings \(b differ\)"):
        claim_record(path, {"a": 1, "b": [3]}, "results")


def test_json_lines_come_back_one_by_one(tmp_path):
    path = tmp_path / "x.jsonl"
    write_json_lines(path, [["a", "why"], ["b", "ä\n"]])
    assert list(read_json_lines(path)) == [["a", "why"], ["b", "ä\n"]]
    path.write_text('[1]\n{"torn')
    with pytest.raises(MaskweaveError, match="line 2 is not valid JSON"):
        list(read_json_lines(path))


def test_long_names_are_cut_and_stay_different():
    long = "1-" + "+".join(f"modality_{n}" for n in range(21))
    names = [short_name(name) for name in ("1-rgb+depth", long, long + "x", "ä" * 200, "ä" * 201)]
    assert names[0] == "1-rgb+depth" and names[1].startswith("1-modality_0+modality_1+")
    assert len(set(names)) == 5 and all(len(name.encode()) <= 120 for name in names)


def calls(monkeypatch, folder):
    """Records what is asked of the system, with names relative to a folder; temporary names are cut to their ending."""
    made, opened = [], {}

    def short(path):
        path = Path(path)
        return ("." + path.suffix if path.name.startswith(".") else path.name) if path != folder else "folder"

    def record(name, of):
        real = getattr(os, name)

        def call(*arguments, **options):
            found = real(*arguments, **options)
            if name == "open":
                opened[found] = arguments[0]
            else:
                made.append(
                    (name, *(short(opened.get(a, a)) if isinstance(a, int) else short(a) for a in arguments[:of]))
                )
            return found

        monkeypatch.setattr(os, name, call)

    for name, of in (("open", 0), ("fsync", 1), ("replace", 2)):
        record(name, of)
    monkeypatch.setattr(
        files.system, "open", lambda path, mode="r", **options: os.fdopen(os.open(path, os.O_RDONLY)), raising=False
    )
    real_remove = files.remove
    monkeypatch.setattr(
        files, "remove", lambda path: (path.exists() and made.append(("remove", short(path))), real_remove(path))
    )
    return made


def test_a_file_is_durable_before_it_is_seen(tmp_path, monkeypatch):
    made = calls(monkeypatch, tmp_path)
    with write_aside(tmp_path / "a") as aside:
        aside.write_text("1")
    assert made == [("fsync", "..partial"), ("replace", "..partial", "a"), ("fsync", "folder")]


def test_the_old_folder_goes_when_the_new_one_is_in_place(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    made = calls(monkeypatch, tmp_path)
    with write_aside(tmp_path / "run") as aside:
        aside.mkdir()
        (aside / "x").write_text("1")
    assert made == [
        ("fsync", "x"),
        ("replace", "run", "..old"),
        ("replace", "..partial", "run"),
        ("remove", "..old"),
        ("fsync", "folder"),
    ]


@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOSPC])
def test_a_second_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch, error):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    real, count = os.replace, [0]

    def rename(*names):
        count[0] += 1
        if count[0] == 2:
            raise OSError(error, "no")
        real(*names)

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises((OSError, FullDisk)), write_aside(tmp_path / "run") as aside:
        aside.mkdir()
    assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run") == ["old"]
    assert count == [3]


@pytest.mark.parametrize("where", ["source: &x {0}", "deep: [{{a: {0}}}]", "{0}: 1"])
def test_yaml_with_nul_characters(tmp_path, where):
    path = tmp_path / "x.yaml"
    path.write_text(where.format(r'"a\0b"'))
    with pytest.raises(MaskweaveError, match="not valid YAML: a text with a NUL character"):
        read_yaml(path)


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 1}', '[{"x": {"a": 1, "a": 2}}]'])
def test_json_with_a_key_twice(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(MaskweaveError, match="not valid JSON: the key 'a' appears twice; remove one"):
        read_json(path)
    with pytest.raises(BadSample, match="the key 'a' appears twice"):
        read_json_value(text.encode(), "here")


def test_an_array_that_is_written_in_part_means_a_full_disk(tmp_path):
    with pytest.raises(FullDisk, match="no space left while writing .*a.npy"), write_aside(tmp_path / "a.npy") as aside:
        aside.symlink_to("/dev/full")
        with open(aside, "wb") as file:
            np.save(file, np.zeros(100_000))
    assert os.listdir(tmp_path) == []


def test_folders_and_files_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MaskweaveError, match="file/a: cannot be made"), write_aside(tmp_path / "file" / "a" / "b"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(MaskweaveError, match="folder: is a folder; expected the name of a file"):
        write_json(tmp_path / "folder", {})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and os.listdir(tmp_path / "folder") == []
