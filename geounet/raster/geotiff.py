"""Class maps and other products as Cloud-Optimized GeoTIFFs, and the legends in them."""

import difflib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime as DateTime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import DTypeLike, NDArray
from rasterio.control import GroundControlPoint
from rasterio.windows import Window

from .._version import __version__
from ..core.grid import Control, Grid
from ..core.legend import Colour, Legend
from ..core.windows import edges
from ..errors import LegendError, OutputError, OutputExistsError, SceneError
from ..output import atomic, check_output
from .gdal import GDAL_ERRORS, bound_cache, hearing, open_raster, quiet, reason

LEGEND_TAG = "GEOUNET_LEGEND"
"""Dataset tag that holds the legend as JSON, so that the one file is enough."""

BLOCK = 512
"""Side of a storage block, in pixels."""

MOST_CATEGORIES = 4096
"""Category names are stored by position, so a code of a million would mean a million names."""

_SIDECARS = (".aux.xml", ".msk", ".ovr")  # what GDAL reads beside a file as if it were part of it
_CLASSWISE = frozenset(["NEAREST", "MODE"])
_LOSSY = frozenset(["JPEG", "WEBP", "JXL"])
_WARPING = frozenset(["TILING_SCHEME", "ZOOM_LEVEL", "ZOOM_LEVEL_STRATEGY", "TARGET_SRS", "RES", "EXTENT", "ADD_ALPHA",
                      "ALIGNED_LEVELS", "WARP_RESAMPLING"])  # fmt: skip
_OPTIONS = frozenset(["COMPRESS", "LEVEL", "MAX_Z_ERROR", "MAX_Z_ERROR_OVERVIEW", "QUALITY", "NUM_THREADS", "PREDICTOR",
                      "BLOCKSIZE", "BIGTIFF", "RESAMPLING", "OVERVIEW_RESAMPLING", "OVERVIEWS", "OVERVIEW_COUNT",
                      "OVERVIEW_COMPRESS", "OVERVIEW_QUALITY", "OVERVIEW_PREDICTOR", "GEOTIFF_VERSION", "SPARSE_OK",
                      "STATISTICS", "JXL_LOSSLESS", "JXL_EFFORT", "JXL_DISTANCE", "JXL_ALPHA_DISTANCE",
                      "INTERLEAVE", "NBITS"])  # fmt: skip

Resampling = Literal["nearest", "mode", "average"]


class CogWriter:
    """A Cloud-Optimized GeoTIFF that takes windows in any order and is there, whole, when its block ends well.

    Pixels go to a scratch file in a hidden folder beside the output. At the end GDAL copies them into blocks
    and overviews, and the copy is renamed; when the block raises, nothing is left. Memory does not grow with
    the raster.

    Parameters
    ----------
    path : str or Path
        File to write. Category names go to ``path.aux.xml``, which is where GDAL looks for them.
    grid : Grid
        Carried exactly: no CRS, no transform, ground control, rotation, orientation and registration.
    dtype : dtype
        Of the pixels stored.
    count : int
        Bands.
    nodata : float, optional
        Declared for all bands; also the value of what is never written.
    descriptions : sequence of str
        One a band, or none.
    tags : mapping of str to str
        Metadata of the file.
    resampling : {'nearest', 'mode', 'average'}
        How overviews are made. The first two keep class codes; an average of them is none.
    colors : mapping of int to (red, green, blue), optional
        Colour table of a single unsigned band of 8 or 16 bits.
    categories : mapping of int to str, optional
        Name of each code of a single band; those from 0 to 4095 are stored.
    scales, offsets : sequence of float, optional
        One a band: value = stored × scale + offset.
    creation_options : mapping of str to str
        Options of GDAL's COG driver, over those chosen here.
    overwrite : bool
        Replace what is there, with what GDAL would read beside it.
    datetime : datetime or str, optional
        When the scene was taken, for TIFFTAG_DATETIME; text is ISO 8601 or as TIFF has it.

    Raises
    ------
    OutputExistsError
        The output, or a file that GDAL would take for its part, exists.
    OutputError
        Its folder is missing or read-only, or an option is none of the driver's.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        *,
        dtype: DTypeLike,
        count: int = 1,
        nodata: float | None = None,
        descriptions: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        resampling: Resampling = "nearest",
        colors: Mapping[int, Colour] | None = None,
        categories: Mapping[int, str] | None = None,
        scales: Sequence[float] | None = None,
        offsets: Sequence[float] | None = None,
        creation_options: Mapping[str, str] | None = None,
        overwrite: bool = False,
        datetime: DateTime | str | None = None,
    ) -> None:
        self.path = Path(path)
        self.grid = grid
        self.dtype = np.dtype(dtype)
        self.count = count
        self._nodata = nodata
        self._descriptions = tuple(descriptions)
        self._scales, self._offsets = scales, offsets
        self._colors, self._categories = dict(colors or {}), dict(categories or {})
        self._overwrite = overwrite
        if self._colors and (count != 1 or self.dtype not in (np.uint8, np.uint16)):
            raise ValueError(f"colour tables are for one band of uint8 or uint16, not {count} of {self.dtype}")
        for what, values in (("descriptions", self._descriptions), ("scales", scales), ("offsets", offsets)):
            if values and len(values) != count:
                raise ValueError(f"{what} are given for {len(values)} bands of {count}")
        self._tags = {**(tags or {}), "TIFFTAG_SOFTWARE": f"geounet {__version__}"}
        if datetime is not None:
            self._tags["TIFFTAG_DATETIME"] = tiff_time(datetime)
        if grid.registration == "Point":
            self._tags["AREA_OR_POINT"] = "Point"
        self._options = _options(creation_options or {}, self.dtype, resampling)
        _check(self.path, overwrite)
        self._folder: Path | None = None
        self._dataset: Any = None

    def __enter__(self) -> Self:
        bound_cache()
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.stem}.", suffix=".part", dir=self.path.parent))
            with self._quietly():
                self._dataset = self._scratch(self._folder / "pixels.tif")
        except (*GDAL_ERRORS, OSError) as error:
            self._discard()
            raise OutputError(f"cannot write {self.path}: {reason(error)}.") from error
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def write(self, window: Window, pixels: NDArray[Any]) -> None:
        """Store the pixels of a window inside the grid, (H, W) or (count, H, W), each pixel once.

        Raises
        ------
        OutputError
            The disk does not take them.
        ValueError
            Shape, type or window do not fit.
        """
        top, left, bottom, right = edges(window, self.grid.shape)
        height, width = self.grid.shape
        pixels = np.asarray(pixels)
        cube = pixels if pixels.ndim == 3 else pixels[None]
        if cube.shape != (self.count, bottom - top, right - left) or cube.dtype != self.dtype:
            raise ValueError(f"{cube.dtype} {cube.shape} does not fit {self.dtype} in {self.count} bands of {window}")
        if top < 0 or left < 0 or bottom > height or right > width:
            raise ValueError(f"{window} sticks out of {self.grid.shape}")
        try:
            self._dataset.write(cube, window=window)
        except (*GDAL_ERRORS, OSError) as error:
            raise OutputError(f"cannot write {self.path}: {reason(error)}. Is the disk full?") from error

    def _scratch(self, path: Path) -> Any:
        """Tiled file that takes windows in any order."""
        height, width = self.grid.shape
        control = self.grid.control
        bare = self.grid.transform.is_identity
        pinned = bool(control and control.points and bare)
        dataset = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=self.count,
            dtype=self.dtype,
            nodata=self._nodata,
            crs=None if pinned else self.grid.crs,
            transform=None if bare else self.grid.transform,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            interleave="pixel" if self.count > 1 else "band",
            sparse_ok=True,
            bigtiff="IF_SAFER",
            compress="deflate",  # written and read once: fast, yet smaller than the pixels
            zlevel=1,
        )
        if control is not None and pinned:
            points = [
                GroundControlPoint(p.row, p.col, p.x, p.y, p.z, id=p.id or str(i), info=p.info)
                for i, p in enumerate(control.points, 1)
            ]
            dataset.gcps = points, control.crs
        if control is not None and control.rpcs is not None:
            dataset.rpcs = control.rpcs
        dataset.update_tags(**self._tags)
        for band, text in enumerate(self._descriptions, 1):
            dataset.set_band_description(band, text)
        if self._colors:
            dataset.write_colormap(1, self._colors)
        if self._scales:
            dataset.scales = tuple(self._scales)
        if self._offsets:
            dataset.offsets = tuple(self._offsets)
        return dataset

    def _finish(self) -> None:
        """Copy the scratch file to its final form and give it its name."""
        assert self._folder is not None
        whole = self._folder / "whole.tif"
        try:
            with self._quietly():
                self._dataset.close()
            view = self._folder / "pixels.vrt"
            rasterio.shutil.copy(self._folder / "pixels.tif", view, driver="VRT")
            _complete(view, self._categories, self.grid.control)
            rasterio.shutil.copy(view, whole, driver="COG", **self._options)
        except (*GDAL_ERRORS, OSError) as error:
            raise OutputError(f"cannot write {self.path}: {reason(error)}. Is the disk full?") from error
        _check(self.path, self._overwrite)
        with atomic(self.path, overwrite=self._overwrite) as part:
            whole.replace(part)
            # gone before the new file comes: what GDAL knew of the old one must not speak for the new
            for suffix in _SIDECARS:
                _beside(self.path, suffix).unlink(missing_ok=True)
        if (sidecar := _beside(whole, ".aux.xml")).exists():
            sidecar.replace(_beside(self.path, ".aux.xml"))

    def _discard(self) -> None:
        """Close and remove what was written beside."""
        if self._dataset is not None and not self._dataset.closed:
            with self._quietly():
                self._dataset.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _quietly(self) -> Any:
        return quiet() if self.grid.transform.is_identity else nullcontext()


def mask_writer(
    path: str | Path,
    grid: Grid,
    legend: Legend,
    *,
    overwrite: bool = False,
    creation_options: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    datetime: DateTime | str | None = None,
) -> CogWriter:
    """Writer of a class map: codes of `legend`, their colours and names, nodata where there is no class.

    Windows take ``legend.decode(ids)``. See `CogWriter` for the parameters and refusals.
    """
    unsigned = legend.dtype.kind == "u"
    return CogWriter(
        path,
        grid,
        dtype=legend.dtype,
        nodata=legend.nodata,
        descriptions=["class"],
        tags={**(tags or {}), LEGEND_TAG: json.dumps(legend.to_dicts(), ensure_ascii=False)},
        resampling="mode",
        colors={c.code: c.color for c in legend.classes} if unsigned else None,
        categories={c.code: c.name for c in legend.classes},
        creation_options=creation_options,
        overwrite=overwrite,
        datetime=datetime,
    )


def tiff_time(moment: DateTime | str) -> str:
    """A moment as TIFFTAG_DATETIME has it, ``YYYY:MM:DD HH:MM:SS``.

    Raises
    ------
    OutputError
        Text is neither ISO 8601 nor of that form.

    Examples
    --------
    >>> tiff_time("2021-06-30T10:12:01Z")
    '2021:06:30 10:12:01'
    """
    if isinstance(moment, str):
        if re.fullmatch(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d", moment):
            return moment
        try:
            moment = DateTime.fromisoformat(moment)
        except ValueError:
            raise OutputError(f"{moment!r} is no date; write it as 2021-06-30T10:12:01.") from None
    return moment.strftime("%Y:%m:%d %H:%M:%S")


def read_legend(path: str | Path) -> Legend:
    """Legend of a class raster: its own tag, else names, colours and codes as they are found.

    Without the tag all pixels are read, block by block: classes are the codes that occur and those that
    have a name, in ascending order; nodata is none. Names come from category names or an attribute table,
    colours from the colour table; a code without a name is ``class_<code>``.

    Raises
    ------
    SceneError
        The file cannot be read.
    LegendError
        It has several bands, or values that are no whole numbers, or too many of them, or none.
    """
    path = str(path)
    try:
        with quiet():
            dataset = open_raster(path)
        with dataset:
            text = dataset.tags().get(LEGEND_TAG)
            if text:
                return _tagged(path, text)
            if dataset.count != 1:
                raise LegendError(
                    f"{path} has {dataset.count} bands, and a class raster has one. If it shows classes as colours, "
                    "turn them into codes first; if one of its bands holds them, extract it (gdal_translate -b)."
                )
            names, colors = _tables(dataset)
            used = _codes(path, dataset)
    except (*GDAL_ERRORS, OSError) as error:
        if isinstance(error, LegendError):
            raise
        raise SceneError(f"{path} cannot be read: {reason(error)}.") from error
    codes = sorted(used | names.keys())
    if not codes:
        raise LegendError(f"{path} has no class: all of its pixels are nodata, and it names none.")
    labels = [names.get(code) or f"class_{code}" for code in codes]
    unique = [f"{name} ({code})" if labels.count(name) > 1 else name for code, name in zip(codes, labels, strict=True)]
    return Legend.of(dict(zip(codes, unique, strict=True)), {code: colors[code] for code in codes if code in colors})


def _tagged(path: str, text: str) -> Legend:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise LegendError(f"the {LEGEND_TAG} tag of {path} is damaged: {error}.") from error
    return Legend.from_dicts(rows)


def _tables(dataset: Any) -> tuple[dict[int, str], dict[int, Colour]]:
    """Names and colours by code. GDAL writes them all into a VRT, wherever the format keeps them."""
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder) / "tables.vrt"
        rasterio.shutil.copy(dataset, view, driver="VRT")
        root = ET.parse(view).getroot()
    band = root.find("VRTRasterBand")
    if band is None:
        return {}, {}
    names = {i: text for i, c in enumerate(band.iterfind("CategoryNames/Category")) if (text := (c.text or "").strip())}
    try:
        colors = {code: tuple(rgba[:3]) for code, rgba in dataset.colormap(1).items()}
    except ValueError:  # there is none
        colors = {}
    return names or _attribute_names(band), colors


def _codes(path: str, dataset: Any) -> set[int]:
    """Values of the valid pixels."""
    found: set[int] = set()
    for _, window in dataset.block_windows(1):
        block = dataset.read(1, window=window)
        values = np.unique(block[dataset.read_masks(1, window=window) != 0])
        if values.dtype.kind == "f":
            values = values[~np.isnan(values)]
            odd = values[values != np.rint(values)]
            if odd.size:
                raise LegendError(f"{path} holds {odd[0]:g}, which is no class code: codes are whole numbers.")
        found.update(int(value) for value in values)
        if len(found) > 2**16:
            raise LegendError(f"{path} holds more than 65536 values; it is no class raster.")
    return found


def _attribute_names(band: ET.Element) -> dict[int, str]:
    """Names by code from a raster attribute table: its column for names, else its first with text."""
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return {}
    fields = [(f.findtext("Type"), f.findtext("Usage")) for f in table.iterfind("FieldDefn")]
    texts = [i for i, (kind, _) in enumerate(fields) if kind == "2"]
    name = next((i for i in texts if fields[i][1] == "2"), texts[0] if texts else None)  # GFU_Name
    value = next((i for i, (_, usage) in enumerate(fields) if usage == "5"), None)  # GFU_MinMax
    if name is None:
        return {}
    start, step = float(table.get("Row0Min", 0)), float(table.get("BinSize", 1))
    names = {}
    for place, row in enumerate(table.iterfind("Row")):
        cells = [cell.text or "" for cell in row.iterfind("F")]
        code = start + step * place if value is None else float(cells[value])
        if code == int(code) and cells[name].strip():
            names[int(code)] = cells[name].strip()
    return names


def _complete(view: Path, categories: Mapping[int, str], control: Control | None) -> None:
    """Write into a VRT what rasterio cannot say, or GDAL shortens: category names, and all digits of ground control."""
    tree = ET.parse(view)
    if control is not None:
        for point, element in zip(control.points, tree.iterfind("GCPList/GCP"), strict=False):
            for key, value in {"Pixel": point.col, "Line": point.row, "X": point.x, "Y": point.y, "Z": point.z}.items():
                element.set(key, repr(float(value)))
    named = {code: name for code, name in categories.items() if 0 <= code < MOST_CATEGORIES}
    if named and (band := tree.find("VRTRasterBand")) is not None:
        names = ET.SubElement(band, "CategoryNames")
        for code in range(max(named) + 1):
            ET.SubElement(names, "Category").text = named.get(code, "")
    tree.write(view, encoding="utf-8")


def _check(path: Path, overwrite: bool) -> None:
    """Refuse an output that is there, or that a stranger's file beside it would speak for."""
    check_output(path, overwrite=overwrite)
    for suffix in _SIDECARS:
        if not overwrite and (beside := _beside(path, suffix)).exists():
            raise OutputExistsError(
                f"{beside} exists already, and GDAL would take it for a part of {path}; remove it, choose another "
                "name, or ask to overwrite (-f)."
            )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _options(given: Mapping[str, str], dtype: np.dtype[Any], resampling: str) -> dict[str, str]:
    """Options for the COG driver: what was chosen here, and over it what the user says."""
    # class maps of 4096² pixels took 3 % less room and 9 % more time by ZSTD, and every reader knows DEFLATE
    chosen = {
        "BLOCKSIZE": str(BLOCK),
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "YES",
        "OVERVIEW_RESAMPLING": resampling.upper(),
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "ALL_CPUS",
    }
    asked = {name.strip().upper(): str(value).strip() for name, value in given.items()}
    for name, value in asked.items():
        _check_option(name, value, classwise=resampling.upper() in _CLASSWISE)
    options = chosen | asked
    if asked and (complaint := _trial(dtype, options)):
        shown = " ".join(f"{name}={value}" for name, value in asked.items())
        raise OutputError(f"GDAL's COG driver does not take the creation options {shown}: {complaint}.")
    return options


def _check_option(name: str, value: str, *, classwise: bool) -> None:
    """Refuse what the COG driver does not know, and what would spoil a class map."""
    if name in _WARPING:
        raise OutputError(f"creation option {name}={value} would warp the output off the scene's grid; warp it later.")
    if name not in _OPTIONS:
        close = difflib.get_close_matches(name, _OPTIONS, 1)
        hint = f"did you mean {close[0]}?" if close else f"it knows {', '.join(sorted(_OPTIONS))}."
        raise OutputError(f"creation option {name}={value} is none of GDAL's COG driver; {hint}")
    if name == "BLOCKSIZE" and not (value.isdigit() and 128 <= int(value) <= 8192 and int(value) % 16 == 0):
        raise OutputError(f"creation option BLOCKSIZE={value} must be a multiple of 16 from 128 to 8192.")
    if classwise and name in ("COMPRESS", "OVERVIEW_COMPRESS") and value.upper() in _LOSSY:
        raise OutputError(
            f"creation option {name}={value} loses values, and class codes must stay; use DEFLATE or ZSTD."
        )
    if classwise and name in ("OVERVIEW_RESAMPLING", "RESAMPLING") and value.upper() not in _CLASSWISE:
        raise OutputError(f"creation option {name}={value} would mix class codes in overviews; use MODE or NEAREST.")


def _trial(dtype: np.dtype[Any], options: Mapping[str, str]) -> str:
    """What GDAL has against these options, or '': it only warns of most, so a pixel is written with them."""
    bound_cache()
    target = f"/vsimem/{uuid4().hex}.tif"
    with rasterio.MemoryFile() as memory, hearing() as heard:
        profile = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": dtype}
        with memory.open(**profile, transform=rasterio.Affine.translation(1, 1)) as dataset:
            try:
                rasterio.shutil.copy(dataset, target, driver="COG", **options)
                rasterio.shutil.delete(target)
            except GDAL_ERRORS as error:
                heard.append(reason(error))
    return heard[0].rstrip(".") if heard else ""
