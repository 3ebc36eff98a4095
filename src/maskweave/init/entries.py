"""The catalog of a project, from the findings."""

from collections.abc import Sequence

from maskweave.errors import MaskweaveError
from maskweave.init.commented import Line, commented
from maskweave.init.finding import Finding
from maskweave.modality.vocabulary import NUM_BYTES, Vocabulary
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.codec import SPECIAL_TOKENS

SENTINELS = 24
PIECES = (64, 2000)
"""Fewest and most pieces of text that a vocabulary may learn."""
MOST_TOKENS = 128
ROBUST = 0.98
"""Share of the texts that fit their entry's max_tokens, if they are not all short."""
CODES = {True: 512, False: 256}
"""Codebook of pictures, and of all else."""
FEW_SAMPLES = 200
"""With fewer samples, codebooks are half as large."""
PREFIX = "tok_"
MEANING = {
    "size": "points along each axis",
    "channels": "numbers at each point",
    "range": "lowest and highest number",
    "scaling": "median and deviation of each channel are learned from the training samples",
    "outside": "numbers outside of the range are clipped to it",
    "missing": "unknown points",
    "ignore": "",
    "fit": "how values of other sizes are fitted (resize, crop, pad or refuse)",
    "classes": "names",
    "key": "its name in the JSON objects",
    "keys": "numbers by name: id (never change it), range, number of bins",
    "rate": "samples per second; sounds of other rates are resampled",
    "max_seconds": "longest duration",
    "mels": "rows of the spectrogram: frequencies",
    "hop": "samples between its columns",
    "window": "samples of each column",
    "fps": "frames per second",
    "array": "array to read from each file",
    "axis": "coordinates of the points",
    "max_characters": "longer texts are refused",
}
DECODING = {
    "image": {"scheme": "roar", "steps": 16, "temperature": 0.7, "top_p": 0.9},
    "video": {"scheme": "roar", "steps": 16, "temperature": 0.7, "top_p": 0.9},
    "audio": {"scheme": "roar", "steps": 16, "temperature": 0.7, "top_p": 0.9},
    "text": {"temperature": 0.1},
    "metadata": {"temperature": 0.1},
}
DENSE = {"scheme": "roar", "steps": 1, "temperature": 0.1}
NUMBERS = ("map", "series")
"""Types whose values are decoded from mean codes: the error of a number is what counts."""


def target_name(finding: Finding) -> str:
    """Name of the entry that the model predicts."""
    return PREFIX + finding.name if finding.is_raw else finding.name


def fit_vocabulary(findings: Sequence[Finding]) -> Vocabulary | None:
    """Returns the vocabulary that the sequences share, and set the longest sequence of each text; None if there are no sequences."""
    sequences = [f for f in findings if f.is_sequence]
    if not sequences:
        return None
    texts = [text for f in sequences for text in f.texts]
    values = {prefix: max(f.special.get(prefix, 0) for f in sequences) for f in sequences for prefix in f.special}
    different = {word for text in texts for word in text.split()}
    words = tuple(dict.fromkeys(word for f in sequences for word in f.words))
    pieces = min(PIECES[1], max(PIECES[0], 2 * len(different))) if texts else 0
    size = len(SPECIAL_TOKENS) + SENTINELS + sum(values.values()) + len(words) + NUM_BYTES + pieces
    name = "text"
    while name in {n for f in findings for n in (f.name, target_name(f))}:
        name += "_"
    vocabulary = Vocabulary(name, size, SENTINELS, dict(sorted(values.items())), words)
    if texts:
        tokenizer = TextTokenizer.train(vocabulary, texts)
        for f in sequences:
            if f.texts:
                _set_longest(f, sorted(len(ids) for ids in tokenizer.encode_batch(f.texts)))
    return vocabulary


def _set_longest(finding: Finding, lengths: list[int]) -> None:
    most = lengths[-1] if lengths[-1] <= MOST_TOKENS else lengths[int(ROBUST * (len(lengths) - 1))]
    finding.max_tokens = min(MOST_TOKENS, (most + 7) // 8 * 8)
    cut = sum(n > finding.max_tokens for n in lengths)
    if cut:
        finding.doubts.append(
            f"{cut} of {len(lengths)} texts are longer than max_tokens {finding.max_tokens} and are cut; raise it if their ends matter (the longest has {lengths[-1]})"
        )


def catalog_text(
    findings: Sequence[Finding], vocabulary: Vocabulary | None, samples: int, header: Sequence[str]
) -> str:
    """Returns the catalog as commented YAML."""
    taken = {f.name for f in findings}
    for f in findings:
        if f.is_raw and target_name(f) in taken:
            raise MaskweaveError(
                f"the folders {f.name!r} and {target_name(f)!r} need one name for two things; rename one of them"
            )
    lines: list[Line | str] = [*header]
    if vocabulary is not None:
        fields = [
            Line("type", vocabulary.type, "pieces of bytes, learned from the texts; any text is restored exactly"),
            Line("size", vocabulary.size, "number of ids: special ones, 256 bytes, learned pieces"),
            Line("sentinels", vocabulary.sentinels, "ids that stand for masked spans"),
        ]
        if vocabulary.values:
            fields.append(
                Line("values", vocabulary.values, "ids of the numbers (v0) and keys (v1) of metadata and boxes")
            )
        if vocabulary.words:
            fields.append(Line("words", list(vocabulary.words), "one id each"))
        lines.append(
            Line("vocabularies", below=[Line(vocabulary.name, comment="shared by all sequences", below=fields)])
        )
    entries: list[Line | str] = []
    number = 0
    for f in findings:
        number += 1
        entries += ["", f"{f.name}: {f.found} ({f.files} files)", *_entry(f, number, vocabulary, samples)]
        number += f.is_raw
    return commented([*lines, Line("modalities", below=entries)])


def _entry(f: Finding, number: int, vocabulary: Vocabulary | None, samples: int) -> list[Line]:
    value = Line(
        "value",
        below=[
            Line("type", f.type, "what a value is; docs/values.md lists the types and their fields"),
            *(_field(f, key, value) for key, value in f.value.items()),
        ],
    )
    id_line = Line("id", number, "unique; never change it after training")
    settings = DENSE | {"detokenize": "mean"} if f.type in NUMBERS else DECODING.get(f.type, DENSE)
    decoding = Line("decoding", settings, "how it is generated")
    view = (
        [Line("view", f.view, "shows another frame than the other pictures: cropped and flipped by itself")]
        if f.view
        else []
    )
    if f.is_sequence:
        assert vocabulary is not None
        fields = [
            id_line,
            Line("kind", "sequence", "tokens from left to right"),
            Line("vocabulary", vocabulary.name),
            Line("max_tokens", f.max_tokens, "longest sequence, end token included"),
            *([Line("chunk", f.chunk, "key and number are masked together")] if f.chunk > 1 else []),
            value,
            decoding,
        ]
        return [Line(f.name, below=fields)]
    if not f.grid:
        rules = Line("kind", "grid", "tokenized by rules, without a network")
        folder = [Line("folder", f.folder, "folder of its files")] * bool(f.folder)
        return [Line(f.name, below=[id_line, rules, *folder, value])]
    patch = "×".join(str(s // g) for s, g in zip(f.points, f.grid, strict=True))
    grid = Line("grid", list(f.grid), f"tokens along each axis; each covers {patch} points")
    codes = CODES[f.type in ("image", "video")] // (2 if samples < FEW_SAMPLES else 1)
    tokenizer = Line(
        "tokenizer",
        {"quantizer": {"type": "vq", "codes": codes}},
        "a network that turns each patch into one of these codes",
    )
    kind = Line("kind", "grid", "tokens in any order, from a learned codebook")
    if not f.is_raw:
        return [Line(f.name, below=[id_line, kind, grid, *view, value, tokenizer, decoding])]
    raw = [
        id_line,
        Line("kind", "patches", "the points themselves: the model reads them, but predicts the tokens below"),
        grid,
        *view,
        value,
    ]
    tokens = [
        Line("id", number + 1),
        kind,
        Line("source", f.name, "tokenizes the same files"),
        grid,
        *view,
        Line("value", below=[Line("type", f.type), *(Line(k, v) for k, v in f.value.items())]),
        tokenizer,
        decoding,
    ]
    return [Line(f.name, below=raw), Line(target_name(f), below=tokens)]


def _field(f: Finding, key: str, value: object) -> Line:
    meaning = f"{MEANING.get(key, '')}; {f.why.get(key, '')}".strip("; ")
    if key == "keys" and isinstance(value, dict):
        return Line(key, comment=meaning, below=[Line(name, content) for name, content in value.items()])
    return Line(key, value, meaning)
