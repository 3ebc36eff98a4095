"""Model sizes, as table rows. Ti to XL are the published 4M sizes (https://arxiv.org/abs/2312.06647, table 10, and 2406.09406)."""

from typing import NamedTuple


class Size(NamedTuple):
    width: int
    heads: int
    encoder_depth: int
    decoder_depth: int


SIZES = {
    "nano": Size(128, 4, 4, 3),
    "micro": Size(192, 6, 5, 4),
    "mini": Size(256, 8, 6, 6),
    "Ti": Size(384, 6, 6, 6),
    "S": Size(512, 8, 8, 8),
    "B": Size(768, 12, 12, 12),
    "L": Size(1024, 16, 24, 24),
    "XL": Size(2048, 32, 24, 24),
}
