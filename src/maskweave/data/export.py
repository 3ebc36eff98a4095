"""A source of samples as aligned folders of files, OUT/MODALITY/KEY.EXT: the reverse of `maskweave data import`."""

import os
from pathlib import Path

from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.files import write_aside
from maskweave.modality.catalogs import Catalog
from maskweave.progress import progress


def export(source: Source, catalog: Catalog, out: str | os.PathLike[str]) -> Path:
    """Write every sample's values as files, each aside first; those of entries that read another's folder are that one's.

    Returns:
        the folder.

    Raises:
        MaskweaveError: `out` is a file, or a folder that already holds something.
        FullDisk: no space is left; the files written so far stay, all of them whole.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "already holds something" if out.is_dir() else "is a file"
        raise MaskweaveError(f"{out}: {found}; choose an empty or new folder")
    with progress("export", len(source)) as bar:
        for i in range(len(source)):
            for name, value in source[i].items():
                if name not in catalog or catalog[name].source:
                    continue
                content, ending = catalog[name].value.to_file(value, name)
                with write_aside(out / name / f"{source.key(i)}.{ending}") as aside:
                    aside.write_bytes(content)
            bar.advance()
    return out
