"""Where bundles come from, under which license, and that it stays with them; and the card that shows it."""

from pathlib import Path

import pytest
import yaml
from small_bundle import m3ae_bundle, save, small_bundle

import maskweave
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.files import write_json
from maskweave.provenance import (
    Origin,
    Provenance,
    carried,
    made_now,
    origin_of,
    place_name,
    read_provenance,
    with_license,
    write_provenance,
)
from maskweave.training.pipeline import claim
from maskweave.training.recipe import load_recipe

ORIGINS = [Origin("model", "EPFL/x", "abc", "cc-by-nc-4.0", "https://example.org/terms"), Origin("text", "words.json")]


def test_the_license_of_published_files_is_read_and_not_guessed(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    assert origin_of("model", "a/b", folder) == Origin("model", "a/b", "0123abcd", "")
    (folder / "LICENSE.txt").write_text("Do what you want", encoding="utf-8")
    assert origin_of("model", "a/b", folder).license == "see LICENSE.txt there"
    readme = folder / "README.md"
    readme.write_text(
        "---\nlicense: other\nlicense_name: sample-code\nlicense_link: https://x.org\ntags: [a]\n---\n# Model\n",
        encoding="utf-8",
    )
    assert origin_of("model", "a/b", folder) == Origin("model", "a/b", "0123abcd", "sample-code", "https://x.org")
    readme.write_text("---\nlicense: mit\n---\ntext", encoding="utf-8")
    assert origin_of("model", tmp_path, folder) == Origin("model", tmp_path.name, "0123abcd", "mit")
    for broken in (
        "---\nlicense: [\n---\n",
        "license: mit\n---\n---\n",
        "---\nlicense: mit\n",
        "---\n- 1\n---\n",
        "",
        "\xff",
    ):
        readme.write_bytes(broken.encode("latin-1"))
        assert origin_of("model", "x", folder).license == "see LICENSE.txt there", broken


@pytest.mark.parametrize(
    ("provenance", "words", "card"),
    [
        (Provenance(), "not stated", ""),
        (Provenance("mit"), "mit", "mit"),
        (Provenance("", "", ORIGINS), "cc-by-nc-4.0 (model); not stated (text)", ""),
        (Provenance("mit", "", ORIGINS[:1]), "mit; made from: cc-by-nc-4.0 (model)", ""),
        (Provenance("", "", ORIGINS[:1] * 2), "cc-by-nc-4.0 (model, model)", "cc-by-nc-4.0"),
    ],
)
def test_licenses_in_words(provenance: Provenance, words: str, card: str) -> None:
    assert provenance.describe_license() == words and provenance.card_license() == card


def test_bundles_keep_and_show_it(tmp_path: Path) -> None:
    folder = save(small_bundle(), tmp_path / "first")
    assert maskweave.load(folder).provenance == Provenance()
    write_provenance(Provenance("", "maskweave 0", ORIGINS), folder)
    bundle = maskweave.load(folder)
    assert repr(bundle).endswith("license: cc-by-nc-4.0 (model); not stated (text))")
    again = maskweave.load(bundle.save(tmp_path / "second"))
    assert again.provenance == bundle.provenance
    (folder / "provenance.json").write_text('{"license": 3}', encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"provenance\.json: 'license' expects text, found 3"):
        maskweave.load(folder)


def test_a_run_that_starts_from_a_bundle_inherits_it(tiny_recipe: Path, tmp_path: Path) -> None:
    start = save(small_bundle(), tmp_path / "start")
    write_provenance(Provenance("mine", "", [*ORIGINS, Origin("start", str(tmp_path / "older"))]), start)
    recipe = load_recipe(tiny_recipe, {"tokenizers.reuse": str(start / "tokenizers")})
    claim(recipe, tmp_path / "run")
    found = read_provenance(tmp_path / "run")
    assert found.origins == [Origin("tokenizers", "start", license="mine"), *ORIGINS, Origin("start", "older")]
    assert not found.license and str(tmp_path) not in (tmp_path / "run" / "provenance.json").read_text(encoding="utf-8")
    claim(load_recipe(tiny_recipe), tmp_path / "other")
    assert not (tmp_path / "other" / "provenance.json").exists()


def test_the_card_of_a_run(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(tiny_run), "--name", "me/scenes", "--license", "Apache-2.0"]) == 0
    text = capsys.readouterr().out
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "maskweave", "tags": ["maskweave", "fourm", "multimodal"], "pipeline_tag": "any-to-any", "license": "apache-2.0",
    }  # fmt: skip
    assert "# me/scenes" in body and "maskweave.load('me/scenes')" in body
    assert body.count("| `") == 11 + 2 * 9, "modalities, and scores with one input"
    assert "| `rgb` | `depth` | AbsRel (lower) | " in body and "Trained from scratch" in body
    assert main(["card", str(tiny_run), "--out", str(tmp_path / "README.md")]) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name")


def test_cards_of_other_bundles(tmp_path: Path) -> None:
    folder = save(m3ae_bundle(), tmp_path / "m3ae")
    write_provenance(Provenance("", "maskweave 0", ORIGINS), folder)
    text = maskweave.load(folder).card()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "other" and head["license_name"] == "see-below" and "pipeline_tag" not in head
    assert head["license_link"] == "https://example.org/terms"
    assert "## Use" not in text and "Not evaluated." in text
    assert "| model | EPFL/x at abc | [cc-by-nc-4.0](https://example.org/terms) |" in text
    assert "ask its owner" in text
    write_json(folder / "evaluation.json", [{"inputs": "x"}])
    with pytest.raises(MaskweaveError, match=r"evaluation\.json: damaged .* run maskweave evaluate again"):
        maskweave.load(folder).card()


def test_what_pages_and_files_say_is_cut(tmp_path: Path) -> None:
    page = f"---\nlicense: {'l' * 201}\nlicense_link: {'u' * 501}\n---\n"
    (tmp_path / "README.md").write_text(page, encoding="utf-8")
    found = origin_of("model", "a/b", tmp_path)
    assert found == Origin("model", "a/b", "", "l" * 200, "u" * 500), (
        "no revision: the folder is not of the Hub's cache"
    )


def test_the_first_license_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").mkdir()
    for name in ("LICENSE.b", "LICENSE.a", "LICENSE.c"):
        (tmp_path / name).touch()
    assert origin_of("model", "a/b", tmp_path).license == "see LICENSE.a there"


@pytest.mark.parametrize(("more", "license"), [(0, "mit"), (1, "")])
def test_pages_that_are_too_large_are_not_read(
    more: int, license: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "1")
    page = "---\nlicense: mit\n---\n"
    (tmp_path / "README.md").write_text(page + "x" * (2**20 - len(page) + more), encoding="utf-8")
    assert origin_of("model", "a/b", tmp_path).license == license


def test_a_page_that_does_not_start_with_its_facts(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("\n---\nlicense: mit\n---\n", encoding="utf-8")
    assert origin_of("model", "a/b", tmp_path).license == ""


def test_folders_are_recorded_by_their_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert place_name("deep") == place_name(Path("deep")) == "deep" and place_name(".") == "here"
    assert place_name("deep/../deep") == "deep"
    assert place_name(tmp_path / "nothing") == "nothing"
    assert place_name("owner/name") == "owner/name" and place_name("owner/name@v1") == "owner/name@v1"


def test_what_a_bundle_was_made_from_is_carried_on(tmp_path: Path) -> None:
    start = tmp_path / "start"
    assert carried(start, "model") == [Origin("model", "start")]
    write_provenance(
        Provenance("mit", "maskweave 0", [Origin("text", str(tmp_path / "words"), "abc", "x", "y")]), start
    )
    assert carried(start, "model") == [
        Origin("model", "start", license="mit"),
        Origin("text", "words", "abc", "x", "y"),
    ]


def test_a_license_replaces_that_of_a_bundle_only_if_there_is_one() -> None:
    assert made_now() == Provenance("", f"maskweave {maskweave.__version__}", [])
    assert made_now("mit", ORIGINS) == Provenance("mit", f"maskweave {maskweave.__version__}", ORIGINS)
    old = Provenance("mit", "maskweave 0", ORIGINS)
    assert with_license(old, "") == old
    assert with_license(old, "isc") == Provenance("isc", "maskweave 0", ORIGINS)


def test_the_card_names_a_license_that_all_parts_share() -> None:
    parts = [Origin("model", "a", license="mit"), Origin("text", "b", license="isc")]
    assert Provenance("mit", "", parts[:1]).card_license() == "mit"
    assert Provenance("", "", parts).card_license() == "" == Provenance("isc", "", parts[:1]).card_license()
