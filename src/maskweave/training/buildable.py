"""Finds errors in recipe and entries before anything is read, trained or written.

Builds the same parts as a run: text codecs with untrained vocabularies, tokenizer networks and the model without memory for their weights,
and their objectives. Problems that depend on samples are found only by the run.
"""

from collections.abc import Iterable
from pathlib import Path

from maskweave.errors import MaskweaveError
from maskweave.families.base import family_named
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.folder import load_grid_tokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.pretrained import taken_tokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.training.distributed import check_device
from maskweave.training.recipe import Recipe
from maskweave.training.warm_start import warm_start


def check_buildable(recipe: Recipe, catalog: Catalog, folder: Path | None = None) -> None:
    """Builds all parts of a run.

    Args:
        folder: run folder; tokenizers that it already has are not taken from `tokenizers.reuse`.

    Raises:
        MaskweaveError: a folder of the recipe or a device is missing, or parts do not fit the entries or each other; the message says which.
    """
    for settings in (recipe.train, recipe.tokenizers.train):
        check_device(settings.device)
    reuse = Path(recipe.tokenizers.reuse) if recipe.tokenizers.reuse else None
    made = [] if folder is None else [path.parent.name for path in (folder / "tokenizers").glob("*/config.json")]
    sequences = [m for m in catalog.values() if m.kind == "sequence"]
    grids = [m for m in catalog.values() if m.kind == "grid"]
    names = [*dict.fromkeys(m.vocabulary for m in sequences), *(m.name for m in grids)]
    todo = [name for name in names if name not in made]
    if todo and reuse is not None and not reuse.is_dir():
        raise MaskweaveError(
            f"tokenizers.reuse: {reuse}: no such folder; set it to the 'tokenizers' folder of a run, or remove it"
        )
    ready = {name: reuse / name for name in todo if reuse is not None and (reuse / name / "config.json").exists()}
    for name in catalog.vocabularies:
        if name in todo:
            _check_vocabulary(catalog, name, [m for m in sequences if m.vocabulary == name], ready.get(name))
    for modality in grids:
        if modality.name in ready:
            load_grid_tokenizer(ready[modality.name], modality)  # reads the weights
        elif modality.name in todo and taken_tokenizer(modality) is None and modality.value.tokenized_by == "network":
            TokenizerObjective(GridTokenizer.without_weights(modality))
    family = family_named(recipe.model.family)
    family.check(recipe.model, catalog)
    model = family.empty_model(catalog, recipe.model)
    family.build_objective(model, recipe.model, catalog)
    if recipe.start:
        warm_start(model, catalog, recipe.start_folder)


def _check_vocabulary(catalog: Catalog, name: str, members: Iterable[Modality], ready: Path | None) -> None:
    """Checks that a vocabulary has the tokens that the entries of its sequences need.

    A vocabulary that is not trained yet is trained on the words of these entries, so nothing that texts could add is reported as missing.
    """
    members = list(members)
    if ready is not None:
        text = TextTokenizer.load(ready)
        text.require(catalog.vocabularies[name], str(ready))
    else:
        words = [word for m in members for word in m.value.written_words]
        text = TextTokenizer.train(catalog.vocabularies[name], words)
    for modality in members:
        SequenceTokenizer(modality, text)
