"""Georeferenced images, in files or in arrays, read as chips."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SceneError
from .arrays import ArrayScene, open_array
from .base import Chip, Scene
from .files import RASTER_SUFFIXES, FileScene, open_files

if TYPE_CHECKING:
    import xarray

__all__ = ["ArrayScene", "Chip", "FileScene", "Scene", "open_scene"]


def open_scene(
    source: "str | Path | Sequence[str | Path] | xarray.DataArray",
    *,
    bands: Sequence[str] | Mapping[str, int] | None = None,
    nodata: float | None = None,
) -> Scene:
    """Scene of one raster, of several stacked, or of an array; no pixel is read yet.

    Parameters
    ----------
    source : str, Path, sequence of them, or DataArray
        Anything GDAL opens (a file, a VRT, a subdataset, ``/vsi…``, ``https://``); a list, a folder or a glob
        pattern of files whose bands are stacked, one file a band as a rule; or an array (band, y, x) or (y, x),
        in memory or dask's.
    bands : sequence of str, or mapping of str to int, optional
        Names in stored order, one an image band; or the number, from 1, of each band wanted (of the file in
        the list, where each has one band). By default names come from band descriptions, then from a product's
        token in file names (``_B02``, ``_SR_B4``); a band without either is ``band_i``.
    nodata : float, optional
        Value of all bands that means no data, whatever the files declare.

    Raises
    ------
    SceneError
        A file is missing, or cannot be read as a raster.
    UnsupportedRasterError
        The raster is complex, has no bands, or its axes are not (band, y, x).
    BandMismatchError
        `bands` does not fit the source.
    GridError
        Files lie on different grids, or an array's coordinates on none.
    """
    # an array can only come from a module that somebody has imported already
    if (module := sys.modules.get("xarray")) is not None and isinstance(source, (module.DataArray, module.Dataset)):
        return open_array(source, bands=bands, nodata=nodata)
    if isinstance(source, (str, Path)):
        return open_files(str(source), list(_expand(str(source))), bands=bands, nodata=nodata)
    paths = [str(path) for path in source]
    if not paths:
        raise SceneError("a scene needs at least one file; the list is empty.")
    name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    return open_files(name, paths, bands=bands, nodata=nodata)


def _expand(source: str) -> Iterator[str]:
    """Files that a name stands for: itself, a folder's rasters, or what a pattern matches, by name."""
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in RASTER_SUFFIXES and not p.name.startswith("."))
        if found:
            yield from map(str, found)
        else:
            yield source  # some formats are folders
    elif set("*?[") & set(source) and "://" not in source and not source.startswith("/vsi") and not path.exists():
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not found:
            raise SceneError(f"no file matches {source}; check the pattern.")
        yield from map(str, found)
    else:
        yield source
