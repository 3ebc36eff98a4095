"""Table of model sizes. Ti to XL are the published 4M sizes (https://arxiv.org/abs/2312.06647, table 10, and 2406.09406)."""

from typing import NamedTuple


class FourMSize(NamedTuple):
    width: int
    heads: int
    encoder_depth: int
    decoder_depth: int


SIZES = {
    "nano": FourMSize(128, 4, 4, 3),
    "micro": FourMSize(192, 6, 5, 4),
    "mini": FourMSize(256, 8, 6, 6),
    "Ti": FourMSize(384, 6, 6, 6),
    "S": FourMSize(512, 8, 8, 8),
    "B": FourMSize(768, 12, 12, 12),
    "L": FourMSize(1024, 16, 24, 24),
    "XL": FourMSize(2048, 32, 24, 24),
}
