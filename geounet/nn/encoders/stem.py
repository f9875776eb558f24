"""How the first layer of a pretrained network comes to read other bands than it was trained on.

A kernel of that layer belongs to a band. Which bands here take over which kernels, and what part of them, is a list of
`Share`: plain values, decided by names and wavelengths alone, before any weight is touched.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from ...core.bands import WAVELENGTHS, canonical, is_unnamed
from ...core.bandtypes import BandType
from ..features import Features

EMITTED = 3.0
"""Micrometres: beyond, light is the ground's own warmth, and tells nothing of what the ground reflects."""
OPAQUE = frozenset(["cirrus"])
"""Bands that see the air and not the ground."""


class Share(NamedTuple):
    """Part of a pretrained kernel that a band takes over."""

    band: str
    """Channel of the network here."""
    source: str | None
    """Band of the pretrained weights; None for a channel that starts from zero."""
    weight: float
    """Factor of the source's kernel."""


def channel_names(bands: Sequence[str], types: Sequence[BandType], features: Features) -> tuple[str, ...]:
    """Name of each channel that a network sees of some bands, in the order of `Features`.

    A continuous band keeps its name, one that becomes several channels is numbered from 0, and a normalised difference
    names its two bands.

    Examples
    --------
    >>> channel_names(["red", "nir"], [BandType(), BandType()], Features(differences=True))
    ('red', 'nir', 'red|nir')
    """
    names = [
        name if not kind.typed else f"{name}[{channel}]"
        for name, kind in zip(bands, types, strict=True)
        for channel in range(kind.channels)
    ]
    if features.differences:
        quantities = [name for name, kind in zip(bands, types, strict=True) if not kind.typed]
        names += [f"{one}|{two}" for one, two in combinations(quantities, 2)]
    return tuple(names)


def shares(
    bands: Sequence[str] | None, sources: Sequence[str] | None, *, channels: int, kernels: int
) -> tuple[Share, ...]:
    """Parts of pretrained kernels that each band takes over.

    1. A band that the weights know by name takes that band's kernel.
    2. One that they do not know takes from those next to it in wavelength on either side, the nearer the more
       (linearly), or from the last one where there is none on one side. Reflected and emitted light (beyond 3 µm) do
       not stand in for each other, and cirrus for nothing.
    3. A kernel that is taken more than once is shared in proportion, so that bands of one value together draw the
       answer that the one band drew.
    4. All is multiplied by one factor that makes the weights add up to the number of kernels, so that an answer keeps
       its mean, and layers behind meet numbers of the size they have learnt for, though bands may be missing.
    5. A channel that is related to none (a normalised difference, a code, a bit, an elevation) starts from zero:
       the network begins as if it were not there, and learns it by its gradient.

    Where either side does not say what its bands are, or no band is related to any, there is nothing to go by: as
    many channels as kernels are taken in order, if names do not speak against it; otherwise each channel takes the
    same part of every kernel.

    Parameters
    ----------
    bands : sequence of str or None
        Names of the network's channels; None, or ``band_1`` and so on, where they are not known.
    sources : sequence of str or None
        Names of the bands that the weights were trained on, likewise.
    channels, kernels : int
        How many there are of each.

    Returns
    -------
    tuple of Share
        By band, then by source; every channel has at least one.

    Examples
    --------
    >>> for share in shares(["red", "nir"], ["red", "green"], channels=2, kernels=2):
    ...     print(*share)
    red red 1.0
    nir red 1.0
    >>> shares(["red", "red|nir"], ["red"], channels=2, kernels=1)[1]
    Share(band='red|nir', source=None, weight=0.0)
    """
    known, given = _known(bands), _known(sources)
    wanted = known or _numbered(channels)
    from_ = given or _numbered(kernels)
    if known is None or given is None:
        return _in_order(wanted, from_) if channels == kernels else _evenly(wanted, from_)
    taken = [_sources(name, given) for name in known]
    if not any(taken):
        return _evenly(wanted, from_)
    users = [max(1.0, sum(parts.get(kernel, 0.0) for parts in taken)) for kernel in range(kernels)]
    shared = [{kernel: part / users[kernel] for kernel, part in sorted(parts.items())} for parts in taken]
    factor = kernels / sum(sum(parts.values()) for parts in shared)
    rows = []
    for name, parts in zip(wanted, shared, strict=True):
        rows += [Share(name, from_[kernel], factor * part) for kernel, part in parts.items()]
        if not parts:
            rows.append(Share(name, None, 0.0))
    return tuple(rows)


def adapted(kernels: Tensor, plan: Sequence[Share], bands: Sequence[str], sources: Sequence[str]) -> Tensor:
    """First layer's weights (O, C, h, w) for the bands here, from pretrained ones (O, S, h, w).

    Parameters
    ----------
    kernels : Tensor (O, S, h, w)
    plan : sequence of Share
        As `shares` makes it.
    bands, sources : sequence of str
        The names that the plan uses, each once, C and S of them.
    """
    matrix = torch.zeros(len(bands), len(sources), dtype=torch.float64)
    for band, source, weight in plan:
        if source is not None:
            matrix[bands.index(band), sources.index(source)] += weight
    return torch.einsum("cs,oshw->ochw", matrix, kernels.double()).to(kernels.dtype)


def names_or_numbers(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Names as `shares` writes them: canonical, or numbers where there are none."""
    return _known(names) or _numbered(count)


def _known(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names in geounet's spelling; None where they only say where a band stands."""
    return None if names is None or all(is_unnamed(name) for name in names) else canonical(names)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"band_{number}" for number in range(1, count + 1))


def _in_order(bands: Sequence[str], sources: Sequence[str]) -> tuple[Share, ...]:
    return tuple(Share(band, source, 1.0) for band, source in zip(bands, sources, strict=True))


def _evenly(bands: Sequence[str], sources: Sequence[str]) -> tuple[Share, ...]:
    return tuple(Share(band, source, 1 / len(bands)) for band in bands for source in sources)


def _sources(band: str, sources: Sequence[str]) -> dict[int, float]:
    """Parts, adding up to 1, of the kernels that a band takes if no other does; none where none is related."""
    if band in sources:
        return {sources.index(band): 1.0}
    light = _light(band)
    if light is None:
        return {}
    lit = [(there, index) for index, name in enumerate(sources) if (there := _light(name)) is not None]
    side = sorted((there, index) for there, index in lit if (there > EMITTED) == (light > EMITTED))
    if not side:
        return {}
    after = bisect_left(side, (light, -1))
    if after in (0, len(side)):
        return {side[min(after, len(side) - 1)][1]: 1.0}
    (low, one), (high, two) = side[after - 1], side[after]
    part = (light - low) / (high - low)
    return {index: weight for index, weight in ((one, 1 - part), (two, part)) if weight > 0}


def _light(name: str) -> float | None:
    """Wavelength by which a band may stand in for another, in micrometres."""
    return None if name in OPAQUE else WAVELENGTHS.get(name)
