"""A source of samples as aligned folders of files, OUT/MODALITY/KEY.EXT: the reverse of `maskweave data import`."""

import os
from pathlib import Path

from maskweave.arguments import check_arguments
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.files import write_aside
from maskweave.modality.catalogs import Catalog
from maskweave.progress import progress


@check_arguments
def export(source: Source, catalog: Catalog, out: str | os.PathLike[str]) -> Path:
    """Write the values of every sample as files. Each file is written to a temporary file, then renamed.

    An entry that reads another entry's values (`source`) gets no files of its own.

    Returns:
        the folder.

    Raises:
        MaskweaveError: `out` is a file, or a folder that is not empty.
        FullDisk: no space is left; the files written so far are complete and are kept.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "is not empty" if out.is_dir() else "is a file"
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
