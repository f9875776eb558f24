"""Which of an item's bands are read: those named, or all that hold light, each from its best asset."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from ....core.bands import canonical, locate
from ....errors import BandMismatchError
from ..lattice import Resolution
from .bands import ItemBand


def choose_bands(
    source: str,
    offered: Sequence[ItemBand],
    bands: Sequence[str] | Mapping[str, str] | Mapping[str, int] | None,
    resolution: Resolution | None,
) -> list[ItemBand]:
    """Bands to read, each once.

    Raises
    ------
    BandMismatchError
        A band is missing or asked for twice, or assets that have it cannot be told apart.
    """
    if isinstance(bands, str):
        raise BandMismatchError(f"bands is the text {bands!r}; pass a list of names, or a mapping of name to name.")
    usual = [band for band in offered if not band.picture] or list(offered)
    if bands is None:
        light = [band for band in usual if band.spectral]
        wanted = light or [band for band in usual if band.data] or usual
        return [_best(source, wanted, name, resolution) for name in dict.fromkeys(band.name for band in wanted)]
    if isinstance(bands, Mapping):
        found = [_named(source, offered, usual, str(name), resolution) for name in bands.values()]
        if vague := [str(name) for name, group in zip(bands.values(), found, strict=True) if len(group) != 1]:
            raise BandMismatchError(
                f"{', '.join(vague)} of {source} is more than one band; name each, as in {listed(offered)}."
            )
        names = canonical(list(bands))
        chosen = [replace(group[0], name=name) for name, group in zip(names, found, strict=True)]
    else:
        chosen = [band for name in bands for band in _named(source, offered, usual, name, resolution)]
    twice = [name for name, count in Counter(band.name for band in chosen).items() if count > 1]
    if twice or not chosen:
        raise BandMismatchError(
            f"{', '.join(twice) or 'no band'} of {source} was asked for{' twice' * bool(twice)}; it has "
            f"{listed(offered)}."
        )
    return chosen


def _named(
    source: str, offered: Sequence[ItemBand], usual: Sequence[ItemBand], name: str, resolution: Resolution | None
) -> list[ItemBand]:
    """Band of a name, or all bands of an asset."""
    meaning = canonical([name])[0]
    meant = [band for band in usual if band.name == meaning] or [b for b in usual if b.code.lower() == name.lower()]
    if meant:
        return [_best(source, meant, meant[0].name, resolution)]
    if of_asset := [band for band in offered if band.asset == name]:
        return of_asset
    (stand_in,) = locate([meaning], [band.name for band in usual])
    if stand_in is None:
        raise BandMismatchError(
            f"{source} has no band or asset called {name}; it has {listed(offered)}. Pass bands=[…] with some of them."
        )
    return [_best(source, usual, usual[stand_in].name, resolution)]


def _best(source: str, bands: Sequence[ItemBand], name: str, resolution: Resolution | None) -> ItemBand:
    """Of all bands of one name, the one to read."""

    def rank(band: ItemBand) -> tuple[bool, bool, bool, float]:
        gsd = inf if band.gsd is None else band.gsd
        # the coarsest that is fine enough for what was asked, else the finest
        fits = isinstance(resolution, (int, float)) and gsd <= resolution
        return band.count > 1, not band.optimized, not fits, -gsd if fits else gsd

    first, *others = sorted((band for band in bands if band.name == name), key=rank)
    if others and rank(others[0]) == rank(first) and others[0].asset != first.asset:
        alike = [band.asset for band in (first, *others) if rank(band) == rank(first)]
        raise BandMismatchError(
            f"{source} has the band {name} in the assets {', '.join(alike)}, which differ in nothing that tells which "
            f"is meant; pass the keys of those to read, as in bands=[{alike[0]!r}]."
        )
    return first


def listed(offered: Sequence[ItemBand]) -> str:
    """Assets and the bands of each, for a person."""
    held: dict[str, list[str]] = {}
    for band in offered:
        held.setdefault(band.asset, []).append(band.name)
    return ", ".join(key if names == [key] else f"{key} ({', '.join(names)})" for key, names in held.items())
