"""Values as an encoder's inputs: nothing hidden, nothing drawn, every sample with the same modalities."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from maskweave.batch import Inputs
from maskweave.catalogues import Catalogue
from maskweave.data.tokenising import column_of
from maskweave.errors import BadSample, MaskweaveError
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.values import normalise_rows


def read_inputs(
    samples: Sequence[Mapping[str, Any]],
    catalogue: Catalogue,
    tokenizers: Mapping[str, Tokenizer],
    names: Sequence[str],
) -> Inputs:
    """A batch of checked values.

    Args:
        names: modalities to read, lattices first; all samples must have them.

    Raises:
        BadSample: a sample lacks one, or a value does not fit its entry.
        MaskweaveError: there is no tokenizer of one that needs it.
    """
    content, present = {}, {}
    for name in names:
        modality = catalogue[name]
        if modality.has_tokens and name not in tokenizers:
            raise MaskweaveError(f"input {name!r}: there is no tokenizer of it; use other inputs, or train one")
        values = [sample.get(name, sample.get(modality.reads)) for sample in samples]
        if any(value is None for value in values):
            raise BadSample(
                f"sample {values.index(None)} of the batch has no {name!r}; every sample must have all inputs"
            )
        column = column_of(modality, values, tokenizers.get(name))
        places = modality.tokens if column.length is None else max(1, int(column.length.max()))
        if column.rows is not None:
            content[name] = torch.from_numpy(normalise_rows(modality, column.rows[:, :places]))
        else:
            assert column.ids is not None
            content[name] = torch.from_numpy(column.ids[:, :places].astype(np.int64))
        if column.length is not None:
            present[name] = torch.from_numpy(np.arange(places) < column.length[:, None])
    return Inputs.of(content, present)
