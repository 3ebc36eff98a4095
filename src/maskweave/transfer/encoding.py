"""The encoder's output for a head."""

import torch

from maskweave.generate.engine import Precision
from maskweave.masking.inputs import Inputs
from maskweave.models.encoder import Encoded, Encoder


def encoded_for_head(encoder: Encoder, inputs: Inputs, device: torch.device, precision: Precision) -> Encoded:
    """Encodes a batch with matrix products in a precision; the tokens are float32, because heads compute in it.

    Args:
        inputs: on `device`, as the encoder is.
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        encoded = encoder(inputs)
    return encoded._replace(tokens=encoded.tokens.float())
