"""What a STAC item offers: each band of its rasters, as versions 1.0 and 1.1 describe it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ....core.bands import WAVELENGTHS, reconciled
from ....errors import SceneError
from ..products import token

if TYPE_CHECKING:
    import pystac

_RASTERS = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "image/jpeg2000")
_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
_PICTURES = frozenset(["thumbnail", "overview", "visual", "metadata", "tiles"])
"""Roles of assets that are made to be looked at."""
_BAND_LISTS = ("eo:bands", "raster:bands", "bands")
"""Fields of an asset with an entry a band: two in version 1.0, one in 1.1."""
_CLASS_FIELDS = frozenset(["classification:classes", "classification:bitfields"])
_SENSOR_HINTS = (
    ("hls-l30", re.compile(r"hls2?[-_.]?l30")),
    ("hls-s30", re.compile(r"hls2?[-_.]?s30")),
    ("sentinel-2", re.compile(r"sentinel-?2")),
    ("landsat-tm", re.compile(r"landsat-?[45]\b")),
    ("landsat-etm", re.compile(r"landsat-?7\b")),
    ("landsat-oli", re.compile(r"landsat-?[89]\b")),
)


@dataclass(frozen=True, slots=True)
class ItemBand:
    """One band that an item offers."""

    name: str
    """In geounet's spelling, else the item's; without one, what the file's or the asset's name says, in lower case."""
    code: str
    """What the item calls it."""
    asset: str
    """Key of its asset."""
    href: str
    index: int
    """Where it stands in its file, from 1."""
    count: int
    """Bands that the item declares in that file; 0 where it does not say."""
    spectral: bool
    """True if the item or a sensor's tables say what light it holds."""
    picture: bool
    """True if the asset is made to be looked at."""
    data: bool
    """True if the asset has the role `data`."""
    classes: bool
    """True if the item says that values are codes, which cannot be mixed."""
    optimized: bool
    """True if the file is a Cloud-Optimized GeoTIFF."""
    gsd: float | None
    """Ground sampling distance, in metres."""
    wavelength: float | None
    """Centre, in micrometres."""
    nodata: float | None
    scale: float
    offset: float


def item_bands(item: "pystac.Item") -> tuple[ItemBand, ...]:
    """Every band of an item's rasters, in the order of its assets.

    Raises
    ------
    SceneError
        An asset lies relative to an item whose own place is not known.
    """
    told = [(key, asset, *said) for key, asset in item.assets.items() if _is_raster(asset) for said in _told(asset)]
    codes = [str(band.get("name") or key) for key, _, _, _, band in told]
    common = [str(band.get("eo:common_name") or band.get("common_name") or "") for _, _, _, _, band in told]
    names = reconciled(codes, common, _sensor(item))
    return tuple(
        _band(item, key, asset, index, count, band, name, code)
        for (key, asset, index, count, band), name, code in zip(told, names, codes, strict=True)
    )


def _told(asset: "pystac.Asset") -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Number from 1, count, and fields of each band of an asset, those of the asset itself included."""
    fields = asset.extra_fields
    lists = [fields.get(key) or [] for key in _BAND_LISTS]
    count = max(map(len, lists))
    shared = {key: value for key, value in fields.items() if key not in _BAND_LISTS}
    for place in range(max(count, 1)):
        band = dict(shared)
        for told in lists:
            if place < len(told) and isinstance(told[place], Mapping):  # numbers in versions before 1.0
                band |= told[place]
        yield place + 1, count, band


def _band(
    item: "pystac.Item",
    key: str,
    asset: "pystac.Asset",
    index: int,
    count: int,
    band: Mapping[str, Any],
    name: str,
    code: str,
) -> ItemBand:
    wavelength = _number(band, "eo:center_wavelength", "center_wavelength")
    href = _href(item, key, asset)
    roles = set(asset.roles or ())
    return ItemBand(
        name=name if name in WAVELENGTHS else _plain(key, href, index, count, code),
        code=code,
        asset=key,
        href=href,
        index=index,
        count=count,
        spectral=name in WAVELENGTHS or wavelength is not None,
        picture=bool(roles & _PICTURES),
        data="data" in roles,
        classes=bool(_CLASS_FIELDS & band.keys()),
        optimized="cloud-optimized" in (asset.media_type or ""),
        gsd=_number(band, "raster:spatial_resolution", "spatial_resolution", "gsd"),
        wavelength=wavelength,
        nodata=_number(band, "nodata", "raster:nodata"),
        scale=_number(band, "raster:scale", "scale") or 1.0,
        offset=_number(band, "raster:offset", "offset") or 0.0,
    )


def _plain(key: str, href: str, index: int, count: int, code: str) -> str:
    """Name of a band that is no light: as in a folder of the same files, where the file's name says it."""
    if code != key:
        return code
    if count > 1:
        return f"{key.lower()}_{index}"
    said = token(href)
    return said.name if said is not None and said.kind == "quality" else key.lower()


def _number(fields: Mapping[str, Any], *keys: str) -> float | None:
    """First of some fields that is a finite number; infinities and NaN are texts in JSON."""
    for key in keys:
        value = fields.get(key)
        if isinstance(value, (int, float)) and isfinite(value):
            return float(value)
    return None


def _sensor(item: "pystac.Item") -> str | None:
    """Sensor that the item's collection, its constellation and its platform tell of."""
    fields = [item.collection_id, item.properties.get("constellation"), item.properties.get("platform")]
    told = " ".join(str(field) for field in fields if field).lower().replace("_", "-")
    return next((sensor for sensor, hint in _SENSOR_HINTS if hint.search(told)), None)


def _is_raster(asset: "pystac.Asset") -> bool:
    kind = (asset.media_type or "").split(";")[0].strip().lower()
    return kind in _RASTERS if kind else urlsplit(asset.href).path.lower().endswith(_SUFFIXES)


def _href(item: "pystac.Item", key: str, asset: "pystac.Asset") -> str:
    href = asset.href if "://" in asset.href or asset.href.startswith("/vsi") else asset.get_absolute_href()
    if href is None:
        raise SceneError(
            f"the asset {key} of the item {item.id} lies at {asset.href}, which is relative, and the item does not say "
            "where it lies itself; pass its path or address, or call item.set_self_href first."
        )
    return url2pathname(urlsplit(href).path) if href.startswith("file://") else href
