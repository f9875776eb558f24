"""Scenes in files: one raster of any kind GDAL opens, or several stacked, each on a grid of its own."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.grid import Grid
from ...errors import BandMismatchError, SceneError, UnsupportedRasterError
from .base import Scene, choose, stored_nodata
from .lattice import Resolution, choose_grid
from .picks import Pick, read_resampled, read_stored
from .products import holds_classes, token
from .resample import METHODS, Method, Placement
from .stored import Raster, look


def open_files(
    source: str,
    paths: Sequence[str],
    *,
    bands: Sequence[str] | Mapping[str, int] | None = None,
    nodata: float | Mapping[str, float] | None = None,
    resolution: Resolution | None = None,
    grid: Grid | None = None,
    resampling: str | Mapping[str, str] = "bilinear",
) -> "FileScene":
    """Scene of one raster, or of several whose bands are stacked in the order given.

    The arguments are those of `open_scene`; files here are always bands of one scene.

    Raises
    ------
    SceneError
        A file is missing, or is no raster that GDAL can read.
    UnsupportedRasterError
        A band is complex.
    GridError
        The files cannot be brought onto one grid.
    BandMismatchError
        `bands`, `nodata` or `resampling` does not fit the files.
    """
    if "" in paths:
        raise SceneError("a scene was given an empty name; name a file, a folder or a pattern.")
    rasters = [look(path, stated=nodata is not None) for path in paths]
    return stack(source, rasters, bands=bands, nodata=nodata, resolution=resolution, grid=grid, resampling=resampling)


def stack(
    source: str,
    rasters: Sequence[Raster],
    *,
    bands: Sequence[str] | Mapping[str, int] | None,
    nodata: float | Mapping[str, float] | None,
    resolution: Resolution | None,
    grid: Grid | None,
    resampling: str | Mapping[str, str],
) -> "FileScene":
    """Scene of the bands of some rasters; see `open_files`."""
    chosen_grid = choose_grid([(raster.path, raster.grid) for raster in rasters], resolution, grid)
    stored = [(raster, band) for raster in rasters for band in range(len(raster.dtypes))]
    alpha = [i for i, (raster, band) in enumerate(stored) if band == raster.alpha]
    said = names(rasters)
    called, chosen = choose(source, said, bands, alpha)
    keys = [(name, said[i], _code(stored[i][0])) for name, i in zip(called, chosen, strict=True)]
    fills = _nodata(source, keys, nodata)
    methods = _methods(source, keys, resampling)
    places = {id(raster): Placement(chosen_grid, raster.grid) for raster in rasters}
    picks = [
        Pick(raster, band + 1, _dtype(raster, band), _fill(raster, band, fill), places[id(raster)], method)
        for (raster, band), fill, method in zip((stored[i] for i in chosen), fills, methods, strict=True)
    ]
    shown = {(pick.raster.path, pick.index - 1) for pick in picks}
    first = next((raster for raster in rasters if places[id(raster)].offset is not None), rasters[0])
    return FileScene(
        source=source,
        grid=chosen_grid,
        bands=called,
        dtype=_common_dtype(picks),
        block_shape=first.block_shape,
        tags=rasters[0].tags,
        notes=(*_notes(rasters, shown), *_guided(picks, fills), *_moved(picks)),
        picks=tuple(replace(pick, alpha=_alpha_of(pick.raster, shown)) for pick in picks),
    )


@dataclass(frozen=True, eq=False)
class FileScene(Scene):
    """A scene whose pixels lie in files, opened once in each thread that reads.

    Files whose pixels are those of the scene's grid are read as they are. Others are brought to it on reading:
    each band by its own method, from its own valid pixels, so that a pixel does not depend on the window or on
    the other bands that are read.
    """

    picks: tuple[Pick, ...]
    """Where each band is stored."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that the bands lie in, in their order, each once."""
        return tuple(dict.fromkeys(pick.raster.path for pick in self.picks))

    @property
    def origin(self) -> dict[str, Any]:
        """File, number from 1, nodata and alpha of each band; how it was brought to the scene's grid, if it was."""
        rows = [
            {"name": name, "file": pick.raster.path, "index": pick.index, "nodata": pick.nodata}
            | ({} if pick.alpha is None else {"alpha": pick.alpha})
            | ({} if pick.placement.offset is not None else {"resampling": pick.method})
            for name, pick in zip(self.bands, self.picks, strict=True)
        ]
        return {"bands": rows}

    def on(self, grid: Grid) -> "FileScene":
        """The same bands on another grid, brought to it straight from the files."""
        places = {id(pick.raster): Placement(grid, pick.raster.grid) for pick in self.picks}
        picks = tuple(replace(pick, placement=places[id(pick.raster)]) for pick in self.picks)
        return replace(self, grid=grid, picks=picks, dtype=_common_dtype(picks))

    def by_nearest(self, bands: Collection[str]) -> "FileScene":
        """View in which some bands are taken from the nearest pixel, where they lie on another grid than the scene's."""
        picks = tuple(
            replace(pick, method="nearest") if name in bands and pick.placement.offset is None else pick
            for name, pick in zip(self.bands, self.picks, strict=True)
        )
        return replace(self, picks=picks, dtype=_common_dtype(picks))

    def _take(self, places: Sequence[int]) -> "FileScene":
        picks = tuple(self.picks[i] for i in places)
        view: FileScene = self._view(places, picks=picks, dtype=_common_dtype(picks))
        return view

    @property
    def as_stored(self) -> bool:
        """True if all bands are of one type that float32 holds exactly, and none is brought to another grid."""
        exact = np.can_cast(self.dtype, np.float32)
        return exact and all(pick.dtype == self.dtype and pick.placement.offset is not None for pick in self.picks)

    def _fill(self, window: Window, out: NDArray[Any]) -> NDArray[np.bool_]:
        valid = np.ones(out.shape[1:], np.bool_)
        start = 0
        # rasterio reads bands of one type at a time
        for (raster, _), group in groupby(self.picks, key=lambda pick: (pick.raster, pick.dtype)):
            picks = list(group)
            part = out[start : start + len(picks)]
            if (offset := picks[0].placement.offset) is not None:
                down, across = offset
                there = Window(window.col_off + across, window.row_off + down, window.width, window.height)
                read_stored(raster, picks, there, part, valid)
            else:
                for pick, band in zip(picks, part, strict=True):
                    read_resampled(pick, window, band, valid)
            start += len(picks)
        return valid


def _common_dtype(picks: Iterable[Pick]) -> np.dtype[Any]:
    return np.result_type(*[pick.read_dtype for pick in picks])


def names(rasters: Sequence[Raster]) -> list[str]:
    """Name of every stored band, by its description, else by the product's token in its file's name; '' if neither."""
    tokens = [token(raster.path) for raster in rasters]
    said = [known.name for known in tokens if known is not None]
    clear = len(rasters) > 1 and len({name.lower() for name in said}) == len(said)
    found = []
    for raster, known in zip(rasters, tokens, strict=True):
        if clear and known and len(raster.dtypes) == 1 and not raster.descriptions[0]:
            found.append(known.name)
        else:
            found.extend(raster.descriptions)
    return found


def _dtype(raster: Raster, band: int) -> np.dtype[Any]:
    """Type of a band, from 0, that is no complex number."""
    dtype = raster.dtypes[band]
    if dtype.kind == "c":
        raise UnsupportedRasterError(
            f"{raster.path} holds complex numbers ({dtype}) in band {band + 1}, which have no single value to "
            "classify. Compute the amplitude, or whichever part is meant, into a new raster first."
        )
    return dtype


def _fill(raster: Raster, band: int, said: float | None) -> float | int | None:
    """Nodata of a band, from 0, as a value of its type: what the user says, else the file, else the product's guide."""
    dtype = raster.dtypes[band]
    if said is not None and np.isfinite(said) and stored_nodata(said, dtype) is None:
        raise SceneError(
            f"nodata {said:g} was given for {raster.path}, whose band {band + 1} ({dtype}) cannot hold it; leave "
            "it out to take what the file declares."
        )
    if said is None:
        said = raster.nodata[band] if (guide := _guide(raster)) is None else guide
    return stored_nodata(said, dtype)


def _guide(raster: Raster) -> int | None:
    """What a product's guide says its pixels are filled with, where the file of a band has no word on it."""
    told = raster.nodata[0] is not None or raster.shared_mask or bool(raster.own_masks)
    known = token(raster.path) if len(raster.dtypes) == 1 and raster.dtypes[0].kind in "iu" and not told else None
    return known.fill if known else None


def _nodata(
    source: str, keys: Sequence[tuple[str, ...]], nodata: float | Mapping[str, float] | None
) -> list[float | None]:
    """What the user says of each band's nodata."""
    if not isinstance(nodata, Mapping):
        return [nodata] * len(keys)
    return _by_band(source, keys, nodata, "nodata")


def _methods(source: str, keys: Sequence[tuple[str, ...]], resampling: str | Mapping[str, str]) -> list[Method]:
    """How each band is brought to another grid; a product's layers of classes are never mixed unless named."""
    given = resampling if isinstance(resampling, Mapping) else {}
    general = "bilinear" if isinstance(resampling, Mapping) else resampling
    found: list[Method] = []
    for (name, *_), said in zip(keys, _by_band(source, keys, given, "resampling"), strict=True):
        method = said or ("nearest" if holds_classes(name) else general)
        known = next((known for known in METHODS if known == method), None)
        if known is None:
            raise BandMismatchError(f"bands are resampled by {', '.join(METHODS)}, not by {method!r}.")
        found.append(known)
    return found


def _by_band(source: str, keys: Sequence[tuple[str, ...]], given: Mapping[str, Any], what: str) -> list[Any]:
    """Value of each band in a mapping by name, in geounet's spelling or the product's; None where there is none."""
    lower = {name.strip().lower(): value for name, value in given.items()}
    strange = [name for name in given if not any(name.strip().lower() in map(str.lower, key) for key in keys)]
    if strange:
        have = ", ".join(name for name, *_ in keys)
        raise BandMismatchError(f"{what} was given for {', '.join(strange)}; the bands of {source} are {have}.")
    return [next((lower[name.lower()] for name in known if name.lower() in lower), None) for known in keys]


def _code(raster: Raster) -> str:
    """What a product calls the one band of a file; '' where its name does not say."""
    known = token(raster.path) if len(raster.dtypes) == 1 else None
    return known.code if known else ""


def _alpha_of(raster: Raster, shown: set[tuple[str, int]]) -> int | None:
    """Band, from 1, of a file's validity, unless the scene shows it as an image band."""
    return None if raster.alpha is None or (raster.path, raster.alpha) in shown else raster.alpha + 1


def _notes(rasters: Sequence[Raster], shown: set[tuple[str, int]]) -> Iterator[str]:
    for raster in rasters:
        yield from raster.notes
        if raster.alpha is not None and (raster.path, raster.alpha) not in shown:
            yield (
                f"{raster.path} marks band {raster.alpha + 1} as alpha, so it says which pixels are valid and is no "
                "image band; if it holds light (near infrared, say), name all bands, as in --bands red,green,blue,nir."
            )


def _guided(picks: Sequence[Pick], said: Sequence[float | None]) -> Iterator[str]:
    """Tell what is nodata by a product's guide alone."""
    kinds: dict[int, list[str]] = {}
    for pick, fill in zip(picks, said, strict=True):
        if fill is None and (guide := _guide(pick.raster)) is not None:
            kinds.setdefault(guide, []).append(pick.raster.path)
    for guide, paths in kinds.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield (
            f"{paths[0]}{more} declare{'s' * (not more)} no nodata; {guide} counts as such, as the product's guide has it "
            "(--nodata nan keeps such pixels)."
        )


def _moved(picks: Sequence[Pick]) -> Iterator[str]:
    """Tell which files are brought to the scene's grid, and how."""
    kinds: dict[tuple[str, str, str, str], list[Pick]] = {}
    for pick in picks:
        if pick.placement.offset is None:
            down, across = (f"{side:.4g}" for side in pick.placement.ratio)
            kinds.setdefault((str(pick.raster.grid.crs), down, across, pick.method), []).append(pick)
    for (crs, down, across, method), alike in kinds.items():
        paths = list(dict.fromkeys(pick.raster.path for pick in alike))
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        grid = alike[0].placement.grid
        warped = f" from {crs} to {grid.crs}" if alike[0].raster.grid.crs != grid.crs else ""
        size = f"{across} × {down}" if across != down else across
        yield (
            f"{paths[0]}{more} lie{'s' * (not more)} on another grid ({size} of its pixels to one of the scene's): brought "
            f"to the scene's{warped} by {'nearest neighbour' if method == 'nearest' else f'{method} resampling'}."
        )
