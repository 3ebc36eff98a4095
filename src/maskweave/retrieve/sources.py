"""What can be indexed: scenes, imported data sets, folders of pictures."""

from pathlib import Path
from typing import Any

from maskweave.catalogues import Catalogue
from maskweave.data import codecs
from maskweave.data.shards import Shards
from maskweave.data.source import Source, Subset, check_key
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality import Modality


def open_data(data: str, catalogue: Catalogue, samples: int = 0, seed: int | None = None) -> Source:
    """Open a data set by what a user calls it.

    Args:
        data: `scenes`, the folder of an imported data set, or a folder of pictures.
        samples: the first so many; all by default, and of scenes 1000.
        seed: of scenes, 1 by default; recipes train on those of seed 0 unless they say otherwise.

    Raises:
        MaskweaveError: there is nothing of the kind, or a seed is given for what is no scenes.
    """
    if samples < 0:
        raise MaskweaveError(f"samples must be 0 (all) or more, found {samples}")
    if data == "scenes":
        from maskweave.data.scenes import NO_SCENE, Scenes

        known = [name for name, m in catalogue.items() if m.value.type not in NO_SCENE]
        return Scenes(catalogue.subset(known), samples or 1000, 1 if seed is None else seed)
    if seed is not None:
        raise MaskweaveError(f"a seed chooses among scenes; {data} is a fixed data set, so leave the seed out")
    folder = Path(data)
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "no such folder"
        raise MaskweaveError(f"{data}: {fault}; expected 'scenes', an imported data set, or a folder of pictures")
    source = Shards(folder, catalogue) if any(folder.glob("*/*.tar")) else Pictures(folder, catalogue)
    return Subset(source, range(min(samples, len(source)))) if samples else source


class Pictures:
    """The pictures under a folder, in any depth, as the catalogue's first modality of colour pictures.

    Raises:
        MaskweaveError: no such modality, or no pictures.
    """

    def __init__(self, root: Path, catalogue: Catalogue):
        pictures = [m for m in catalogue.values() if _is_picture(m)]
        if not pictures:
            raise MaskweaveError(f"{root}: {catalogue.where} has no modality of colour pictures")
        self.root, self.catalogue, self.modality = root, catalogue, pictures[0]
        others = [name for name in catalogue if name != self.modality.name and (root / name).is_dir()]
        if others and (root / self.modality.name).is_dir():
            raise MaskweaveError(
                f"{root}: holds a folder per modality ({self.modality.name}, {', '.join(others)}), which is no folder of pictures; "
                "make shards of it with 'maskweave data import'"
            )
        files = (path.relative_to(root) for path in root.rglob("*") if path.suffix[1:].lower() in codecs.PICTURES)
        seen = (path for path in files if not any(part.startswith(".") for part in path.parts))
        self._paths = sorted(path.as_posix() for path in seen if (root / path).is_file())
        if not self._paths:
            raise MaskweaveError(f"{root}: holds no pictures ({', '.join(codecs.PICTURES)}) and no tar shards")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.modality.name,)

    def __len__(self) -> int:
        return len(self._paths)

    def key(self, i: int) -> str:
        """The path under the folder, ending included."""
        return self._paths[i]

    def __getitem__(self, i: int) -> dict[str, Any]:
        path = self.root / check_key(self._paths[i], str(self.root))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadSample(f"{path}: cannot be read: {error.strerror}") from error
        value = codecs.decode(content, path.suffix[1:].lower(), self.modality, str(path))
        return fit({self.modality.name: value}, self.catalogue)


def _is_picture(m: Modality) -> bool:
    return m.value.type == "image" and len(m.value.size) == 2 and m.value.channels == 3 and not m.source
