"""Georeferenced images, in files or in arrays, read as chips."""

import sys
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...core.grid import Grid
from ...errors import GridError, SceneError
from .arrays import ArrayScene, open_array
from .base import Chip, Scene
from .files import FileScene, names, open_files, stack
from .lattice import Resolution
from .mosaic import MosaicScene, are_tiles, lay, same_bands
from .products import expand, stacks
from .stored import Raster, look

if TYPE_CHECKING:
    import pystac
    import xarray

__all__ = ["ArrayScene", "Chip", "FileScene", "MosaicScene", "Scene", "open_files", "open_mosaic", "open_scene"]


def open_scene(
    source: "str | Path | Sequence[str | Path] | xarray.DataArray | xarray.Dataset | pystac.Item",
    *,
    bands: Sequence[str] | Mapping[str, int] | None = None,
    nodata: float | Mapping[str, float] | None = None,
    resolution: Resolution | None = None,
    grid: Grid | None = None,
    resampling: str | Mapping[str, str] = "bilinear",
) -> Scene:
    """Scene of one raster, of several stacked or side by side, or of an array; no pixel is read yet.

    Files of one scene may differ in pixel size, extent and CRS: they are brought to one grid on reading. Values
    are mixed from valid pixels only, and a pixel is valid where the one that its centre falls in is.

    Parameters
    ----------
    source : str, Path, sequence of them, DataArray, Dataset or STAC item
        Anything GDAL opens (a file, a VRT, a subdataset, ``/vsi…``, ``https://``, ``s3://``); a list, a folder or a
        glob pattern of files, stacked where they are bands (a Sentinel-2 SAFE folder, one file a band of Landsat or
        HLS), a mosaic where they are tiles: same bands, ground that touches or overlaps; a STAC item or its JSON; or
        an array (band, y, x) or (y, x), in memory or dask's.
    bands : sequence of str, or mapping of str to int, optional
        Names in stored order, one an image band; or the number, from 1, of each band wanted (of the file in
        the list, where each has one band). By default names come from band descriptions, then from a product's
        token in file names (``_B02``, ``_SR_B4``); a band without either is ``band_i``.
    nodata : float, or mapping of str to float, optional
        Value of all bands that means no data, whatever the files declare; or that of each band named, in
        geounet's spelling or the product's, where the others keep what their files declare.
    resolution : float, 'finest' or 'coarsest', optional
        Side of the scene's pixels, in units of the CRS; or that of the finest (by default) or coarsest file. A
        mosaic has by default that of its first file.
    grid : Grid, optional
        The very grid that the scene is to have, instead of a resolution.
    resampling : {'bilinear', 'nearest', 'average'}, or mapping of str to them
        How bands on other grids are brought to the scene's; or that of each band named, where the others are
        bilinear. Quality layers of products (SCL, QA_PIXEL, Fmask) are taken by nearest neighbour unless named.

    Raises
    ------
    SceneError
        A file is missing, or cannot be read as a raster; the source or `nodata` is of another kind.
    UnsupportedRasterError
        The raster is complex, has no bands, or its axes are not (band, y, x).
    BandMismatchError
        `bands`, `nodata` or `resampling` does not fit the source.
    GridError
        Files cannot be brought onto one grid, or show one place on several; an array's coordinates are on none.
    """
    _check_nodata(nodata)
    options: dict[str, Any] = {"nodata": nodata, "resolution": resolution, "grid": grid, "resampling": resampling}
    # an array can only come from a module that somebody has imported already
    if (module := sys.modules.get("xarray")) is not None and isinstance(source, (module.DataArray, module.Dataset)):
        if resolution is not None or grid is not None:
            raise GridError("an array keeps its own grid; reproject it first, as in da.rio.reproject(resolution=…).")
        return open_array(source, bands=bands, nodata=nodata)
    from .stac import is_item, open_item

    if is_item(source):
        return open_item(cast("Any", source), bands=bands, **options)
    if isinstance(source, (str, Path)):
        return _open(str(source), list(expand(str(source))), bands, options)
    if not isinstance(source, Sequence) or not all(isinstance(file, (str, Path)) for file in source):
        raise SceneError(
            f"a scene is opened from a path, a list of paths, an array or a STAC item, not from {_shown(source)}."
        )
    files = list(map(str, source))
    if not files:
        raise SceneError("a scene needs at least one file; the list is empty.")
    return _open(_called(files), [path for file in files for path in expand(file)], bands, options)


def open_mosaic(
    sources: Sequence[Scene | str | Path],
    *,
    bands: Sequence[str] | Mapping[str, int] | None = None,
    nodata: float | Mapping[str, float] | None = None,
    resolution: Resolution | None = None,
    grid: Grid | None = None,
    resampling: str | Mapping[str, str] = "bilinear",
) -> MosaicScene:
    """Scenes of the same bands, side by side or over each other, as one; no pixel is read yet.

    Where scenes overlap, the first in the list that has a valid pixel is taken, in all bands; each keeps its
    own nodata. Those of another pixel size or CRS are brought onto the lattice of the first; longitudes go on beyond
    180 degrees where tiles lie on both sides of it.

    Parameters
    ----------
    sources : sequence of Scene, str or Path
        Scenes that are open, or whatever `open_scene` opens; `bands`, `nodata` and `resampling` are for the latter.
    bands, nodata, resolution, grid, resampling
        As in `open_scene`.

    Raises
    ------
    SceneError
        There is none, it is no list, or a file cannot be read.
    BandMismatchError
        A scene lacks a band of the first.
    GridError
        A scene cannot be brought onto the grid of the first.
    """
    if not isinstance(sources, Sequence) or isinstance(sources, str):
        raise SceneError(
            f"open_mosaic takes a list of scenes, not {_shown(sources)}; put it into a list, or open a folder or a pattern of "
            "tiles with open_scene."
        )
    if not sources:
        raise SceneError("a mosaic needs at least one scene; the list is empty.")
    scenes = [
        source if isinstance(source, Scene) else open_scene(source, bands=bands, nodata=nodata, resampling=resampling)
        for source in sources
    ]
    return lay(_called([scene.source for scene in scenes]), scenes, resolution=resolution, grid=grid)


def _check_nodata(nodata: object) -> None:
    said = nodata.values() if isinstance(nodata, Mapping) else () if nodata is None else (nodata,)
    for value in said:
        if not isinstance(value, Real):
            raise SceneError(
                f"nodata is a number, or a mapping of band to number, not {_shown(value)}; leave it out to take what the "
                "source declares."
            )


def _shown(value: object) -> str:
    """What a message calls an argument of a wrong kind."""
    if isinstance(value, Scene):
        return f"the scene {value.source}"
    return f"{value!r} ({type(value).__name__})"


def _called(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _open(
    source: str, paths: Sequence[str], bands: Sequence[str] | Mapping[str, int] | None, options: dict[str, Any]
) -> Scene:
    """Scene of some files: bands of one place, or tiles."""
    if "" in paths:
        raise SceneError("a scene was given an empty name; name a file, a folder or a pattern.")
    groups = stacks(paths, options["resolution"])
    rasters = [[look(path, stated=options["nodata"] is not None) for path in group] for group in groups]
    flat = [raster for group in rasters for raster in group]
    named: bool | None = True
    if len(rasters) == 1:
        named = same_bands(flat, names(flat))
        rasters = [[raster] for raster in flat]
    if named is False or len(rasters) == 1 or _names_all(bands, rasters[0]) or not are_tiles(rasters, bool(named)):
        return stack(source, flat, bands=bands, **options)
    each = options | {"resolution": None, "grid": None}
    scenes = [stack(_called([raster.path for raster in group]), group, bands=bands, **each) for group in rasters]
    return lay(source, scenes, resolution=options["resolution"], grid=options["grid"])


def _names_all(bands: Sequence[str] | Mapping[str, int] | None, first: Sequence[Raster]) -> bool:
    """Tell whether the user's bands are those of all files together, and not of each."""
    if bands is None:
        return False
    most = sum(len(raster.dtypes) for raster in first)
    return max(bands.values(), default=0) > most if isinstance(bands, Mapping) else len(bands) > most
