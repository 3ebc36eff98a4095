"""The start of a head of boxes: its first layer standardizes the tokens, modality by modality."""

from pathlib import Path

import pytest
import torch
from small_transfer import make_bundle, write_recipe

from maskweave.masking.inputs import read_inputs
from maskweave.tokenizers.folder import load_tokenizers
from maskweave.transfer.build import build_objective
from maskweave.transfer.data import open_examples
from maskweave.transfer.linear_start import start_from_linear
from maskweave.transfer.recipe import load_transfer
from maskweave.transfer.run import FITTED
from maskweave.transfer.shares import answers
from maskweave.transfer.task import fit_facts


@pytest.mark.parametrize("queries", [0, 6])
def test_tokens_for_boxes_are_standardized(queries: int, tmp_path: Path) -> None:
    head = {"width": 16, "depth": 1, "queries": queries, "heads": 2}
    path = write_recipe(tmp_path, make_bundle(tmp_path / "start"), target="boxes", inputs=["rgb", "caption"], head=head)
    recipe = load_transfer(path)
    catalog = recipe.load_catalog()
    examples = open_examples(recipe.data, catalog, recipe.inputs, recipe.target, recipe.label).train
    facts = fit_facts(examples.target, answers(examples, FITTED), recipe.head)
    objective, _ = build_objective(recipe, catalog, examples.target, facts)
    tokenizers = load_tokenizers(Path(recipe.start) / "tokenizers", objective.encoder.catalog)
    weight, bias = (p.detach().clone() for p in objective.head.project.parameters())
    said = start_from_linear(objective, examples, tokenizers)
    assert said == "the head starts at random, with tokens standardized by 32 examples"

    samples = [examples[i] for i in range(32)]
    with torch.no_grad():
        encoded = objective.encoder(read_inputs(samples, catalog, tokenizers, objective.encoder.names))
        parts = [encoded.tokens[:, part] for part in encoded.slices.values()]
        known = [encoded.present[:, part] for part in encoded.slices.values()]
        parts = [part[present] for part, present in zip(parts, known, strict=True)]
        mean = torch.stack([part.mean(0) for part in parts]).mean(0)
        std = torch.stack([part.var(0, correction=0) for part in parts]).mean(0).sqrt()
        assert std.min() > 0.1 * std.median(), "no feature of this model is so constant that it is kept small"
        expected = (encoded.tokens - mean) / std @ weight.T + bias
        found = objective.head.project(encoded.tokens)
    assert torch.allclose(found, expected, atol=1e-3)
