"""What files say about their numbers: names of bands, and units."""

import warnings

from maskweave.errors import BadSample
from maskweave.values.formats import fits, hdf5
from maskweave.values.formats.base import faults, needs


def tiff_bands(content: bytes, where: str) -> tuple[tuple[str, ...], str]:
    """Returns the descriptions of the bands of a TIFF, none if they are not complete and different, and the unit that all bands share.

    Raises:
        MaskweaveError: rasterio is not installed.
    """
    with needs("rasterio", "geo", where):
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.io import MemoryFile
    try:
        with faults("TIFF", where), warnings.catch_warnings(), MemoryFile(content) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(driver="GTiff") as dataset:
                names = tuple(name or "" for name in dataset.descriptions)
                units = {unit or "" for unit in dataset.units}
    except BadSample:  # its reader says so
        return (), ""
    is_named = all(names) and len(set(names)) == len(names)
    return names if is_named else (), units.pop() if len(units) == 1 else ""


def array_unit(content: bytes, ending: str, where: str, array: str) -> str:
    """Returns the unit that a FITS, HDF5 or NetCDF file states for an array; empty if it states none."""
    if ending in ("fits", "fit"):
        return fits.unit(content, where, array)
    return hdf5.unit(content, where, array) if ending in ("h5", "hdf5", "nc") else ""
