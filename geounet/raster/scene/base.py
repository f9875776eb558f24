"""What every scene is: bands by name on one grid, read window by window."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio.windows import Window

from ...core.bands import WAVELENGTHS, canonical, is_unnamed, locate, unnamed
from ...core.grid import Grid
from ...core.windows import edges
from ...errors import BandMismatchError

NAMING = "pass --bands blue=1,green=2,… (or bands=[…] in file order)"
"""How a person names the bands of a file that does not."""


@dataclass(frozen=True, slots=True)
class Chip:
    """The array cut out of a scene by a window."""

    pixels: NDArray[np.float32]
    """(C, H, W), as stored in the file: scale and offset tags are never applied. 0 outside the scene."""
    valid: NDArray[np.bool_]
    """(H, W): True where all bands of the scene can be used; False outside the scene."""
    window: Window
    """As asked for; it may stick out of the scene on any side."""

    def filled(self, values: ArrayLike) -> NDArray[np.float32]:
        """Pixels with a value a band, (C,), where they are not valid; the chip's own array if all are."""
        if self.valid.all():
            return self.pixels
        fill = np.broadcast_to(np.asarray(values, np.float32), len(self.pixels))
        return np.where(self.valid, self.pixels, fill[:, None, None])


@dataclass(frozen=True, eq=False)
class Scene(ABC):
    """A georeferenced image whose windows are read as chips, from any thread.

    A pixel is valid when all bands of the scene can be used there: the value is finite, is not the band's
    nodata, and neither a mask inside or beside the file nor an alpha band says otherwise.
    """

    source: str
    """What messages call it."""
    grid: Grid
    bands: tuple[str, ...]
    """Names in geounet's spelling; a band without a name is ``band_i``, counted from 1."""
    dtype: np.dtype[Any]
    """Smallest type that holds the values of all bands as they are read: as stored, or float where they are mixed."""
    block_shape: tuple[int, int]
    """Height and width of the storage blocks, in pixels."""
    tags: Mapping[str, str]
    """The file's own metadata, such as TIFFTAG_DATETIME."""
    notes: tuple[str, ...]
    """Sentences about what deserves a warning: no CRS, a palette, pages that are not read."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that the bands lie in, in their order; empty for an array."""
        return ()

    @property
    def origin(self) -> dict[str, Any]:
        """Where each band comes from, as plain values: enough to open the scene again."""
        return {"bands": [{"name": name} for name in self.bands]}

    def select(self, bands: Sequence[str]) -> "Scene":
        """View of some bands, in the order given; only they are read, and validity rests on them alone.

        Parameters
        ----------
        bands : sequence of str
            Names, in geounet's spelling or a sensor's. A missing band is replaced by one that may stand in
            for it (nir08 for nir); the view calls it by the scene's name.

        Raises
        ------
        BandMismatchError
            A band is missing, or two bands of the scene have its name.
        """
        wanted = canonical(bands)
        places = locate(wanted, self.bands)
        missing = [name for name, place in zip(wanted, places, strict=True) if place is None]
        if missing or not wanted:
            raise BandMismatchError(self._lacks(wanted, missing))
        found = [place for place in places if place is not None]
        twice = sorted({self.bands[i] for i in found if self.bands.count(self.bands[i]) > 1})
        if twice:
            raise BandMismatchError(
                f"{self.source} has more than one band called {', '.join(twice)} ({', '.join(self.bands)}), so the "
                f"one to read cannot be told by name. To say which is meant, {NAMING}."
            )
        return self._take(found)

    def by_nearest(self, bands: Collection[str]) -> "Scene":  # noqa: ARG002 - for scenes on one grid alone
        """View in which some bands are taken from the nearest pixel, where they lie on another grid than the scene's.

        So must be codes, flags and angles: nothing lies between two of them.

        Parameters
        ----------
        bands : collection of str
            Names as the scene has them.
        """
        return self

    def read(self, window: Window, out: NDArray[np.float32] | None = None) -> Chip:
        """Pixels of a window and where they can be used; what sticks out of the scene is 0 and not valid.

        Parameters
        ----------
        window : Window
            Whole pixels; it may stick out of the scene on any side.
        out : array, (C, H, W), optional
            Where to write the pixels, such as a place in a batch; by default an array made for them.

        Raises
        ------
        SceneError
            The pixels cannot be read; the message names the file and the window.
        """
        top, left, bottom, right = edges(window, self.grid.shape)
        height, width = self.grid.shape
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
        inside = (y0, x0, y1, x1) == (top, left, bottom, right)
        shape = bottom - top, right - left
        pixels = np.empty((len(self.bands), *shape), np.float32) if out is None else out
        if not inside:
            pixels[...] = 0
        valid = np.zeros(shape, np.bool_)
        if y0 < y1 and x0 < x1:
            rows, cols = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            valid[rows, cols] = self._fill(Window(x0, y0, x1 - x0, y1 - y0), pixels[:, rows, cols])
        return Chip(pixels, valid, window)

    @abstractmethod
    def _take(self, places: Sequence[int]) -> "Scene":
        """View of the bands at `places`, from 0."""

    @property
    def as_stored(self) -> bool:
        """True if `_fill` can write values of the scene's own type, none of which float32 would change."""
        return False

    @abstractmethod
    def _fill(self, window: Window, out: NDArray[Any]) -> NDArray[np.bool_]:
        """Write the pixels of a window inside the scene to `out`, (C, H, W); return where they are valid, (H, W).

        `out` is float32, or of the scene's type where `as_stored`.
        """

    def _lacks(self, wanted: Sequence[str], missing: Sequence[str]) -> str:
        if not wanted:
            return f"no band of {self.source} was asked for; it has {', '.join(self.bands)}."
        have = ", ".join(self.bands)
        if any(is_unnamed(name) for name in self.bands):
            remedy = f"The file does not name all of its bands: {NAMING}"
        else:
            remedy = f"If the file has them under other names, {NAMING}"
        return (
            f"{self.source} has the bands {have}; {', '.join(wanted)} are to be read, "
            f"so {', '.join(missing)} is missing. {remedy}."
        )

    def _view(self, places: Sequence[int], /, **changes: Any) -> Any:
        return replace(self, bands=tuple(self.bands[i] for i in places), **changes)


def choose(
    source: str,
    names: Sequence[str],
    bands: Sequence[str] | Mapping[str, int] | None,
    alpha: Iterable[int] = (),
) -> tuple[tuple[str, ...], list[int]]:
    """Names of a scene's bands, and where each stands among those stored, from 0.

    Parameters
    ----------
    source : str
        What messages call the file.
    names : sequence of str
        What is known of each stored band's name; empty where nothing is.
    bands : sequence of str, or mapping of str to int, optional
        What the user says: names in stored order, or the band, from 1, of each name.
    alpha : iterable of int
        Bands, from 0, that say where the others are valid; they are no image bands unless the user names them.

    Raises
    ------
    BandMismatchError
        The number of names or a band number does not fit the file.
    """
    count = len(names)
    if isinstance(bands, str):
        raise BandMismatchError(f"bands is the text {bands!r}; pass a list of names, or a mapping of name to number.")
    image = [i for i in range(count) if i not in set(alpha)]
    if bands is None:
        known = [names[i].strip() or unnamed(i + 1) for i in image]
        return canonical(known), image
    if isinstance(bands, Mapping):
        wrong = {name: index for name, index in bands.items() if not 1 <= index <= count}
        if wrong:
            raise BandMismatchError(
                f"{source} has {count} band{'s' * (count != 1)}, so "
                f"{', '.join(f'{name}={index}' for name, index in wrong.items())} is not one of them; "
                f"bands are counted from 1 to {count}."
            )
        return canonical(list(bands)), [index - 1 for index in bands.values()]
    if len(bands) == count:
        return canonical(bands), list(range(count))
    if len(bands) == len(image):
        return canonical(bands), image
    beside = f" and {count - len(image)} alpha" if count != len(image) else ""
    raise BandMismatchError(
        f"{source} has {len(image)} image band{'s' * (len(image) != 1)}{beside}, but {len(bands)} names were given "
        f"({', '.join(bands)}). Give a name a band in file order, or name some by number (blue=1,nir=4)."
    )


def spectral(name: str) -> bool:
    """Tell whether a band's name says what light it holds."""
    return canonical([name])[0] in WAVELENGTHS if name.strip() else False


def usable(values: NDArray[Any], nodata: float | None, stored: np.dtype[Any]) -> NDArray[np.bool_] | None:
    """Where the values of one band can be used, same shape; None if that is everywhere by kind.

    Parameters
    ----------
    values : array of integers or floats
        As stored, or cast to a type that holds them exactly.
    nodata : float, optional
        A value of the stored type, as `stored_nodata` gives it.
    stored : dtype
        The type in the file: floats are compared as floats, integers exactly.
    """
    if stored.kind != "f":
        return None if nodata is None else values != values.dtype.type(nodata)
    valid: NDArray[np.bool_] = np.isfinite(values)
    if nodata is not None:
        valid &= ~_same_float(values, nodata)
    return valid


def stored_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | int | None:
    """Nodata as a value of the type stored, or None where that type has no such value and nothing is masked."""
    if nodata is None or np.isnan(nodata):
        return None  # NaN is never valid, declared or not
    if dtype.kind == "f":
        return float(nodata)
    if not np.isfinite(nodata) or int(nodata) != nodata:
        return None
    info = np.iinfo(dtype)
    return int(nodata) if info.min <= int(nodata) <= info.max else None


def _same_float(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where floats are nodata as GDAL sees it: text in a tag does not give every float back bit for bit.

    GDAL (`ARE_REAL_EQUAL`) calls two reals the same when they differ by less than two float32 epsilons of
    their sum, in double precision too.
    """
    if nodata == 0:
        zero: NDArray[np.bool_] = values == 0
        return zero
    kind = values.dtype.type
    with np.errstate(over="ignore"):
        fill = kind(nodata)
        tolerance = kind(2 * np.finfo(np.float32).eps) * np.abs(values + fill)
        near: NDArray[np.bool_] = (values == fill) | (np.abs(values - fill) < tolerance)
    return near
