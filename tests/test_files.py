"""Writing aside, and reading text files."""

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskweave import files
from maskweave.errors import FullDisk, MaskweaveError
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
from maskweave.limits import ReadingLimits, limited_to
from maskweave.modality.catalogs import catalog_from


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    with pytest.raises(RuntimeError), write_aside(target) as aside:
        aside.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert read_json(target) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_replaces_a_folder_as_a_whole(tmp_path):
    target = tmp_path / "run"
    for content in ("one", "two"):
        with write_aside(target) as aside:
            aside.mkdir()
            (aside / content).write_text(content, encoding="utf-8")
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["run"]


def test_a_full_disk_is_said_clearly_and_keeps_the_old_folder(tmp_path):
    target = tmp_path / "run"
    with write_aside(target) as aside:
        aside.mkdir()
        (aside / "whole").write_text("1", encoding="utf-8")
    with pytest.raises(FullDisk, match="no space left while writing .*run"), write_aside(target) as aside:
        aside.mkdir()
        (aside / "half").write_text("2", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(target) == ["whole"]
    assert os.listdir(tmp_path) == ["run"]


@pytest.fixture(params=["libyaml", "Python"])
def yaml_parser(request, monkeypatch):
    if request.param == "Python":
        monkeypatch.setattr(files, "_LIBYAML", None)
    elif files._LIBYAML is None:
        pytest.skip("PyYAML was built without libyaml")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029"))  # no ends of lines
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, DOCUMENTS, max_size=4), st.booleans(), st.booleans())
def test_both_parsers_read_the_same(content, flow, unicode):
    text = yaml.safe_dump(content, default_flow_style=flow, allow_unicode=unicode)
    found = []
    for libyaml in (files._LIBYAML, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "_LIBYAML", libyaml)
            try:
                found.append(parse_yaml(text, "here"))
            except MaskweaveError as error:
                found.append(str(error))
    assert found[0] == found[1] and (found[0] == content or "NUL" in found[0])


def test_errors_of_yaml_show_the_line():
    with pytest.raises(MaskweaveError, match=r"line 2, column 10: rate: one: two \^"):
        parse_yaml("steps: 3\nrate: one: two\n", "here")


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
@pytest.mark.usefixtures("yaml_parser")
def test_yaml_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(MaskweaveError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("yaml_parser")
def test_yaml_may_share_and_merge(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n", encoding="utf-8")
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
@pytest.mark.usefixtures("yaml_parser")
def test_values_that_aliases_repeat(items, aliases, is_read):
    """100,000 are read, 100,001 are not."""
    text = f"a: &a [{', '.join(['0'] * items)}]\nb: [{', '.join(['*a'] * aliases)}]"
    if is_read:
        assert parse_yaml(text, "here")["b"] == [[0] * items] * aliases
        return
    with pytest.raises(MaskweaveError, match="repeat more than 100,000 values"):
        parse_yaml(text, "here")


@pytest.mark.parametrize("text", [BOMB, MERGES], ids=["aliases", "merges"])
@pytest.mark.usefixtures("yaml_parser")
def test_aliases_that_multiply_are_refused_before_anything_is_built(tmp_path, text, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
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
        "a: &a [" + ", ".join(["x"] * 9) + "]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nmodalities: {rgb: *c}\n",
        encoding="utf-8",
    )
    content = read_yaml(path)
    assert len(content["modalities"]["rgb"]) == 4
    with pytest.raises(MaskweaveError, match="expected keys and values, found") as caught:
        catalog_from({"modalities": content["modalities"]}, "here")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: {c: *a}}", "a: &a {<<: *a}"])
@pytest.mark.usefixtures("yaml_parser")
def test_yaml_that_is_part_of_itself(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MaskweaveError, match="refers to a value that contains it"):
        read_yaml(path)


@pytest.mark.usefixtures("yaml_parser")
def test_a_merged_mapping_that_itself_merges(tmp_path):
    """The inner mapping is merged elsewhere before it is built, which must not make its overridden key a duplicate."""
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1}\ndeep: {deeper: {b: &b {<<: *a, x: 2}}}\nc: {<<: *b, y: 3}\n", encoding="utf-8")
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
@pytest.mark.usefixtures("yaml_parser")
def test_yaml_whose_values_cannot_be(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MaskweaveError, match=message):
        read_yaml(path)


def test_large_files_are_refused_unless_a_setting_or_the_caller_allows_them(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(["x" * 2**20] * 2), encoding="utf-8")
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
    path.write_text('[1]\n{"torn', encoding="utf-8")
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
        aside.write_text("1", encoding="utf-8")
    assert made == [("fsync", "..partial"), ("replace", "..partial", "a"), ("fsync", "folder")]


def test_the_old_folder_goes_when_the_new_one_is_in_place(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    made = calls(monkeypatch, tmp_path)
    with write_aside(tmp_path / "run") as aside:
        aside.mkdir()
        (aside / "x").write_text("1", encoding="utf-8")
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
@pytest.mark.usefixtures("yaml_parser")
def test_yaml_with_nul_characters(tmp_path, where):
    path = tmp_path / "x.yaml"
    path.write_text(where.format(r'"a\0b"'), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="not valid YAML: a text with a NUL character"):
        read_yaml(path)


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


def test_written_files_byte_for_byte(tmp_path):
    content = {"b": [1, "ä"], "a": None}
    write_json(tmp_path / "x.json", content)
    files.write_yaml(tmp_path / "x.yaml", content)
    write_json_lines(tmp_path / "x.jsonl", [content, 2])
    assert (tmp_path / "x.json").read_bytes() == '{\n "b": [\n  1,\n  "ä"\n ],\n "a": null\n}\n'.encode()
    assert (tmp_path / "x.yaml").read_bytes() == "b:\n- 1\n- ä\na: null\n".encode()
    assert (tmp_path / "x.jsonl").read_bytes() == '{"b": [1, "ä"], "a": null}\n2\n'.encode()


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.ENOSPC, "no"), True),
        (OSError(errno.EDQUOT, "no"), True),
        (OSError(errno.EACCES, "10 requested and 3 written"), False),
        (OSError("10 requested and 3 written"), True),
        (OSError("other"), False),
    ],
)
def test_what_means_a_full_disk(tmp_path, monkeypatch, error, is_full):
    assert files.is_full_disk(error) == is_full

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        FullDisk if is_full else MaskweaveError, match="no space left while making" if is_full else "cannot be made"
    ):
        files.make_folder(tmp_path / "a")


def test_hashes_and_stamps(tmp_path):
    """Of the standard SHA-256: of the hashes of each file, one after the other; records of earlier versions have them."""
    for name, content in (("a", b"abc"), ("b", b"")):
        (tmp_path / name).write_bytes(content)
    a, b, missing = (tmp_path / name for name in ("a", "b", "c"))
    assert files.digest(a) == hashlib.sha256(hashlib.sha256(b"abc").digest()).hexdigest()[:16]
    assert files.digest(a, b) == files.digest(a, missing) != files.digest(b, a)
    os.utime(a, ns=(5, 7))
    assert files.stamp(a) == [3, 7, a.stat().st_ctime_ns]


def test_short_names_and_their_hash():
    assert short_name("x" * 120) == "x" * 120
    assert short_name("x" * 121) == "x" * 111 + "-" + hashlib.sha256(b"x" * 121).hexdigest()[:8]
    assert short_name("äb" * 9, 20) == "äbäbäbä-" + hashlib.sha256("äb".encode() * 9).hexdigest()[:8]


def test_a_link_to_a_folder_is_removed_and_the_folder_stays(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    files.remove(tmp_path / "link")
    files.remove(tmp_path / "nothing")
    assert os.listdir(tmp_path) == ["a"]
    files.remove(tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("digits", "is_read"), [("f" * 1024, True), ("1" + "0" * 1024, False)])
def test_whole_numbers_have_at_most_4096_bits(digits, is_read):
    if is_read:
        assert parse_yaml(f"a: 0x{digits}", "here") == {"a": 2**4096 - 1}
        return
    with pytest.raises(MaskweaveError, match=r"^here: not valid YAML: a whole number of 4,097 bits"):
        parse_yaml(f"a: 0x{digits}", "here")


@pytest.mark.parametrize(
    ("setting", "recipe", "limit", "expected"),
    [
        ("", None, 64.0, 64.0),
        ("", None, 2.0, 2.0),
        (" 0.5 ", None, 64.0, 0.5),
        ("3", None, 2048.0, 2048.0),
        ("3000", None, 2048.0, 3000.0),
        ("3", 7, 64.0, 7),
        ("", 7, 2.0, 7),
        ("", 7, 2048.0, 2048.0),
    ],
)
def test_limits_of_text_files(monkeypatch, setting, recipe, limit, expected):
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", setting)
    with limited_to(ReadingLimits(text_mb=recipe)):
        assert max_text_mb(limit) == expected
    for wrong in ("0", "-1", "nan", "x"):
        monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", wrong)
        with pytest.raises(MaskweaveError, match="expected a number of megabytes above 0"):
            max_text_mb()


def test_a_file_of_exactly_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "1")
    path = tmp_path / "x.json"
    path.write_text(json.dumps("x" * (2**20 - 2)), encoding="utf-8")
    assert len(read_json(path)) == 2**20 - 2
    path.write_text(json.dumps("x" * (2**20 - 1)), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="set the environment variable MASKWEAVE_MAX_TEXT_MB to 2"):
        read_json(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("folder", "folder: is a folder, expected a JSON file"), ("x" * 300, r"x…: cannot be read \(File name too long\); check the path")],
)  # fmt: skip
def test_paths_that_are_no_files(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(MaskweaveError, match=message):
        read_json(tmp_path / name)


def test_messages_about_wrong_files_are_cut(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &" + "x" * 3000 + " [\n", encoding="utf-8")
    for read in (lambda: read_yaml(tmp_path / "x.yaml"), lambda: parse_yaml("a: !" + "x" * 3000, "here")):
        with pytest.raises(MaskweaveError) as caught:
            read()
        assert len(str(caught.value).partition("not valid YAML: ")[2]) <= 1000


def test_documents_that_are_no_objects(tmp_path):
    (tmp_path / "x.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"x.json: found \[1\]; expected a JSON object"):
        files.read_json_object(tmp_path / "x.json")
    with pytest.raises(MaskweaveError, match=r"holds results made with other settings \(all differ\)"):
        claim_record(tmp_path / "x.json", {"a": 1}, "results")
    with pytest.raises(MaskweaveError, match="^here: expected a mapping of keys to values, found list$"):
        parse_yaml("[1]", "here")
    (tmp_path / "x.json").write_text('{"a": 1}', encoding="utf-8")
    assert files.read_json_object(tmp_path / "x.json") == {"a": 1}
