"""Scenes of STAC items: assets become bands, by the names, places and nodata that the item gives them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ....core.bands import canonical
from ....core.grid import Grid
from ....errors import BandMismatchError, SceneError
from ..base import stored_nodata
from ..files import FileScene, open_files, stack
from ..lattice import Resolution
from ..products import holds_classes
from ..stored import Raster, look
from .bands import ItemBand, item_bands
from .choice import choose_bands
from .items import ItemSource, is_item, read_item

if TYPE_CHECKING:
    import pystac

__all__ = ["ItemBand", "is_item", "item_bands", "open_item", "read_item"]


def open_item(
    item: ItemSource,
    *,
    bands: Sequence[str] | Mapping[str, str] | Mapping[str, int] | None = None,
    nodata: float | Mapping[str, float] | None = None,
    resolution: Resolution | None = None,
    grid: Grid | None = None,
    resampling: str | Mapping[str, str] = "bilinear",
) -> FileScene:
    """Scene of a STAC item, of version 1.0 (``eo:bands``, ``raster:bands``) or 1.1 (``bands``); no pixel is read yet.

    Bands are called as in a folder of the same files: by what the product's names mean on the item's satellite, else
    by their common name, else as the item or its asset's key says. Of assets that hold the same band, one with that
    band alone goes before a composite, a Cloud-Optimized GeoTIFF before other formats, and the finest before coarser
    ones. Scale and offset are never applied.

    Parameters
    ----------
    item : str, Path, mapping or pystac.Item
        File or address of the JSON, its content, or the item itself. Relative hrefs start at the item.
    bands : sequence of str, or mapping, optional
        What to read, in this order: names of bands, in geounet's spelling or the item's, or keys of assets, which
        stand for all bands of theirs; or such a name for each new name. By default every band that holds light,
        or, where none is said to, every asset with the role ``data``; quality layers are read when they are named.
        Where the item has one asset and does not say what is in it, as in `open_scene`.
    nodata : float, or mapping of str to float, optional
        Value of all bands, or of each band named, that means no data. By default what a file declares, and what
        the item says of a file that declares none.
    resolution, grid, resampling
        As in `open_scene`; of a band in several resolutions, the coarsest file that is fine enough is taken.

    Raises
    ------
    SceneError
        There is no item, it has no raster, or one of its files cannot be opened.
    BandMismatchError
        A band is missing, assets cannot be told apart, or a file has other bands than the item says.

    References
    ----------
    .. [1] SpatioTemporal Asset Catalog specification 1.1.0, with the extensions eo 2.0, raster 2.0; stacspec.org.
    """
    source, read = read_item(item)
    offered = item_bands(read)
    if not offered:
        raise SceneError(f"{source} has no asset that is a GeoTIFF or JPEG 2000; its assets are {_assets(read)}.")
    place: dict[str, Any] = {"resolution": resolution, "grid": grid}
    usual = [band for band in offered if not band.picture] or offered
    if len({band.href for band in usual}) == 1 and (_are_numbers(bands) or not usual[0].count):
        numbers = _numbered(source, bands)
        scene = open_files(source, [usual[0].href], bands=numbers, nodata=nodata, resampling=resampling, **place)
        return _tagged(scene, read, ())
    chosen = choose_bands(source, offered, bands, resolution)
    scene = _stacked(source, chosen, nodata, place | {"resampling": _methods(chosen, resampling)})
    return _tagged(scene, read, _notes(source, chosen, scene))


def _assets(item: "pystac.Item") -> str:
    kinds = {key: (asset.media_type or "no media type").split(";")[0] for key, asset in item.assets.items()}
    return ", ".join(f"{key} ({kind})" for key, kind in kinds.items()) or "none at all"


def _are_numbers(bands: Sequence[str] | Mapping[str, Any] | None) -> bool:
    return isinstance(bands, Mapping) and all(isinstance(number, int) for number in bands.values())


def _numbered(source: str, bands: Sequence[str] | Mapping[str, Any] | None) -> Sequence[str] | Mapping[str, int] | None:
    """What the user says of bands that the item does not name."""
    if isinstance(bands, Mapping) and not _are_numbers(bands):
        raise BandMismatchError(
            f"{source} does not name the bands of its asset; say the number of each, from 1, as in bands={{'red': 1}}."
        )
    return bands


def _methods(chosen: Sequence[ItemBand], resampling: str | Mapping[str, str]) -> str | Mapping[str, str]:
    """How bands are brought to another grid: codes by nearest neighbour, unless the user says otherwise."""
    codes = {band.name: "nearest" for band in chosen if band.classes}
    if isinstance(resampling, Mapping):
        return codes | _by_name(chosen, resampling)
    others = {band.name: resampling for band in chosen if not band.classes and not holds_classes(band.name)}
    return codes | others if codes else resampling


def _by_name(chosen: Sequence[ItemBand], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the user says of single bands, by the scene's names for them."""
    found = {}
    for key, value in said.items():
        same = {canonical([key])[0], key.strip()}
        lower = key.strip().lower()
        band = next((b for b in chosen if b.name in same or lower in (b.code.lower(), b.asset.lower())), None)
        found[key if band is None else band.name] = value
    return found


def _stacked(
    source: str, chosen: Sequence[ItemBand], nodata: float | Mapping[str, float] | None, place: Mapping[str, Any]
) -> FileScene:
    """Scene of the bands chosen; what the item says of nodata holds where a file says nothing."""
    paths = list(dict.fromkeys(band.href for band in chosen))
    told = all(band.nodata is not None for band in chosen)
    rasters = {path: look(path, stated=told or nodata is not None) for path in paths}
    counts = [len(rasters[path].dtypes) for path in paths]
    before = dict(zip(paths, accumulate(counts[:-1], initial=0), strict=True))
    for band in chosen:
        _compare(source, band, rasters[band.href])
    if not isinstance(nodata, (int, float)):
        nodata = _completed(chosen, rasters, nodata or {})
    numbers = {band.name: before[band.href] + band.index for band in chosen}
    return stack(source, list(rasters.values()), bands=numbers, nodata=nodata, **place)


def _completed(
    chosen: Sequence[ItemBand], rasters: Mapping[str, Raster], said: Mapping[str, float]
) -> dict[str, float] | None:
    """Nodata of single bands: what the user says, and what the item says of a file that does not say what is valid."""
    given = _by_name(chosen, said)
    added = {
        band.name: band.nodata
        for band in chosen
        if band.nodata is not None and band.name not in given and _fits(band.nodata, band, rasters[band.href])
    }
    return {**added, **given} or None


def _compare(source: str, band: ItemBand, raster: Raster) -> None:
    """Refuse a file whose bands are not those that the item tells of."""
    there = len(raster.dtypes)
    if there != max(band.count, 1) and there - (raster.alpha is not None) != max(band.count, 1):
        raise BandMismatchError(
            f"{source} tells of {max(band.count, 1)} band{'s' * (band.count > 1)} in its asset {band.asset}, and "
            f"{band.href} has {there}. Correct the item, or open the file itself."
        )


def _fits(nodata: float, band: ItemBand, raster: Raster) -> bool:
    """Tell whether a file leaves it open which pixels of a band are valid, and can hold the item's nodata."""
    place = band.index - 1
    masked = raster.alpha is not None or raster.shared_mask or band.index in raster.own_masks
    told = masked or raster.nodata[place] is not None
    return not told and stored_nodata(nodata, raster.dtypes[place]) is not None


def _tagged(scene: FileScene, item: "pystac.Item", notes: Iterable[str]) -> FileScene:
    """Scene with the item's id and date among its tags."""
    when = item.datetime or item.common_metadata.start_datetime
    tags = {"STAC_ITEM": item.id} | ({"TIFFTAG_DATETIME": when.strftime("%Y:%m:%d %H:%M:%S")} if when else {})
    return replace(scene, tags=tags | dict(scene.tags), notes=(*scene.notes, *notes))


def _notes(source: str, chosen: Sequence[ItemBand], scene: FileScene) -> Iterator[str]:
    shifted = [band for band in chosen if band.offset]
    if shifted and not any("declares an offset" in note for note in scene.notes):
        first = shifted[0]
        yield (
            f"{source} declares an offset for {', '.join(band.name for band in shifted)} ({first.name} = stored × "
            f"{first.scale:g} + {first.offset:g}), which is not applied: pixels are read as stored."
        )
