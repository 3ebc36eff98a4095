"""Settings of a grid modality's tokenizer that was trained elsewhere: `tokenizer: {external: facebook/encodec_24khz, codes: 1024, depth: 2}`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from maskweave.permission import PYTHON


@dataclass(frozen=True)
class ExternalSpec:
    """A tokenizer that is used as it is."""

    external: str
    """Folder or Hub id (`owner/name`, `owner/name@REVISION`) of a published tokenizer, or `python: package.module:function` for your own code, which
    runs only if it is allowed."""
    codes: int
    """Codes of one codebook."""
    depth: int = 1
    """Levels of residual codes that are used, coarsest first."""
    tokens: Literal["joined", "separate"] = "joined"
    """`joined`: the codes of all levels are one token, as for the quantizer `residual`; the vocabulary is `codes` to the power of `depth`. `separate`:
    each code is a token; the levels are the first axis of the grid."""
    subfolder: str = ""
    """Folder of the tokenizer within the repository or folder."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of your own function."""

    @property
    def size(self) -> int:
        """Size of the vocabulary."""
        return self.codes ** (self.depth if self.tokens == "joined" else 1)

    @property
    def is_code(self) -> bool:
        """Whether it is code."""
        return self.external.startswith(PYTHON)
