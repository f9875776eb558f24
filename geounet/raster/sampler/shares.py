"""Windows whose classes have the shares asked for."""

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from ...core.balance import spread, tilt
from ...core.cells import Cells
from ...errors import ConfigError
from .pairs import Pair
from .places import Drawn, Floats, Ground, Integers, content_of

Shares: TypeAlias = Mapping[str, float] | Mapping[int, float] | Mapping[str | int, float] | Literal["equal"]
"""Share of the labelled pixels a class, by name or code, or ``equal`` for all classes that occur."""

CANDIDATES = 8192
"""Windows at least from which those with the right share of each class are drawn."""

_log = logging.getLogger(__name__)


def balanced(pairs: Sequence[Pair], ground: Ground, count: int, rng: np.random.Generator, shares: Shares) -> Drawn:
    """Windows whose classes have, on average, the shares asked for."""
    assert ground.cells is not None
    names, codes = _classes(pairs)
    total = sum((one.totals[:-1] for one in ground.cells if one.classes), np.zeros(len(names), np.int64))
    if not total.any():
        raise ConfigError(
            "shares of classes are asked for, but no scene has a valid, labelled pixel: look at nodata, labels, the area of "
            "interest and ignored codes."
        )
    asked = _asked(shares, names, codes, total)
    often = max(CANDIDATES, 2 * count)
    there = np.flatnonzero(total).tolist()
    drawn, crowd = _enriched(ground, ground.draw(often, rng), there, often // (2 * len(there)), rng)
    content = content_of(ground.cells, drawn, ground.side)
    labelled = content.sum(axis=1) > 0
    drawn, content, weights = drawn.take(labelled), content[labelled], 1 / crowd[labelled]
    target = _target(asked, weights @ content)
    tilted = tilt(content, weights, target, np.isin(np.arange(len(names)), list(asked)))
    if not tilted.reached:
        wish = ", ".join(f"{names[k]} {share:.3g}" for k, share in asked.items())
        _tell(ground.cells[0], ground.side, wish, tilted.shares[list(asked)])
    most = content[:, list(asked)]
    order = np.lexsort((most.max(axis=1), most.argmax(axis=1)))  # neighbours are alike, so a draw varies least
    return drawn.take(order[spread(tilted.weights[order], count, rng)])


def _enriched(
    ground: Ground, drawn: Drawn, classes: Sequence[int], count: int, rng: np.random.Generator
) -> tuple[Drawn, Floats]:
    """Windows of the plain draw and, for each class, windows drawn by how much of it they hold.

    So that a class on a hundred-thousandth of the ground is found without a hundred thousand windows. With them comes
    how crowded each window's place is by this beside a plain draw, (N,): its inverse makes good for it [1]_.

    References
    ----------
    .. [1] E. Veach, L. J. Guibas, Optimally combining sampling techniques for Monte Carlo rendering, SIGGRAPH 1995.
    """
    assert ground.cells is not None
    parts, sums = [drawn], []
    density = ground.density
    for k in classes:
        held = [
            density[scene] * _chances_of_cells(cells, k, ground.side).sum() if k < cells.classes else 0.0
            for scene, cells in enumerate(ground.cells)
        ]
        sums.append(sum(held))
        if sums[-1]:
            parts.append(_around(ground, k, rng.multinomial(count, np.array(held) / sums[-1]), rng))
    joined = Drawn.join(parts)
    joined = joined.take(ground.enough(joined))
    crowd = np.full(len(joined), float(len(drawn)))
    for scene, where in joined.by_scene():
        cells = ground.cells[scene]
        for k, total in zip(classes, sums, strict=True):
            if total and k < cells.classes:
                crowd[where] += count / total * _centred(cells, k, joined.top[where], joined.left[where], ground.side)
    return joined, crowd


def _around(ground: Ground, k: int, counts: Integers, rng: np.random.Generator) -> Drawn:
    """Windows about cells of class `k`: a cell by its pixels of the class, then any window that holds its centre."""
    assert ground.cells is not None
    parts = []
    for scene in np.flatnonzero(counts).tolist():
        cells = ground.cells[scene]
        chances = _chances_of_cells(cells, k, ground.side).ravel()
        cell = rng.choice(len(chances), size=counts[scene], p=chances / chances.sum())
        starts = []
        for axis, index in enumerate(np.unravel_index(cell, cells.grid)):
            first, last = (bound[index] for bound in _holding(cells, ground.side, axis))
            starts.append(rng.integers(first, last, endpoint=True))
        parts.append(Drawn(np.full(len(cell), scene), *starts))
    return Drawn.join(parts)


def _chances_of_cells(cells: Cells, k: int, side: int) -> Floats:
    """Pixels of class `k` in each cell times the windows that hold the cell's centre, (rows, cols)."""
    down, along = (np.subtract(*reversed(_holding(cells, side, axis))) + 1.0 for axis in (0, 1))
    chances: Floats = cells.pixels(k) * down[:, None] * along
    return chances


def _centres(cells: Cells, axis: int) -> Integers:
    """Pixel in the middle of each cell along an axis; the last cell may be cut off."""
    starts = np.arange(0, cells.shape[axis], cells.size)
    return np.minimum(starts + cells.size // 2, cells.shape[axis] - 1)


def _holding(cells: Cells, side: int, axis: int) -> tuple[Integers, Integers]:
    """First and last start of the windows that hold the centre of each cell along an axis."""
    centres, room = _centres(cells, axis), cells.shape[axis] - side
    if room <= 0:
        only = np.full(len(centres), room // 2)
        return only, only
    return np.maximum(centres - side + 1, 0), np.minimum(centres, room)


def _centred(cells: Cells, k: int, tops: Integers, lefts: Integers, side: int) -> Floats:
    """Pixels of class `k` in the cells whose centres lie in each window, (N,)."""
    (above, below), (before, after) = (
        (np.searchsorted(_centres(cells, axis), starts), np.searchsorted(_centres(cells, axis), starts + side))
        for axis, starts in ((0, tops), (1, lefts))
    )
    sums = cells.sums[:, :, k].astype(np.float64)
    found: Floats = sums[below, after] - sums[above, after] - sums[below, before] + sums[above, before]
    return found


def _classes(pairs: Sequence[Pair]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and codes of the classes."""
    legend = next((pair.labels.legend for pair in pairs if pair.labels is not None), None)
    if legend is None:
        raise ConfigError("shares of classes are asked for, but no scene has labels.")
    return legend.names, legend.codes


def _asked(shares: Shares, names: Sequence[str], codes: Sequence[int], counts: Integers) -> dict[int, float]:
    """Share asked for by class id."""
    if isinstance(shares, str):
        there = np.flatnonzero(counts)
        return dict.fromkeys(there.tolist(), 1 / len(there))
    ids: dict[str | int, int] = {**{code: k for k, code in enumerate(codes)}, **{n: k for k, n in enumerate(names)}}
    unknown = [key for key in shares if key not in ids]
    if unknown:
        known = ", ".join(f"{code} {name}" for code, name in zip(codes, names, strict=True))
        raise ConfigError(f"shares names the class {unknown[0]}, which the legend does not know ({known}).")
    asked = {ids[key]: float(share) for key, share in shares.items()}
    if len(asked) < len(shares):
        twice = next(names[k] for k in asked if [ids[key] for key in shares].count(k) > 1)
        raise ConfigError(f"shares names the class {twice} twice, by name and by code; leave one of them out.")
    if not all(share >= 0 for share in asked.values()):
        raise ConfigError("a share of class pixels is below 0 or no number; shares are parts of the labelled pixels.")
    absent = [names[k] for k, share in asked.items() if share > 0 and not counts[k]]
    if absent:
        raise ConfigError(
            f"shares asks for {', '.join(absent)}, of which no scene has a labelled pixel: take it out, or add scenes."
        )
    total, rest = sum(asked.values()), [names[k] for k in np.flatnonzero(counts).tolist() if k not in asked]
    if total >= 1 if rest else abs(total - 1) > 1e-6:
        wanted = f"less than 1, as {', '.join(rest)} has the rest" if rest else "1, as every class has one"
        raise ConfigError(f"the shares sum to {total:g}; they are parts of the labelled pixels and sum to {wanted}.")
    return asked


def _target(asked: Mapping[int, float], mass: Floats) -> Floats:
    """Share of every class, (K,): as asked for; the others divide the rest as they do now."""
    target = mass.copy()
    target[list(asked)] = 0
    if target.any():
        target *= (1 - sum(asked.values())) / target.sum()
    for k, share in asked.items():
        target[k] = share
    target /= target.sum()
    return target


def _tell(first: Cells, side: int, wish: str, reached: Floats) -> None:
    """Say which shares are not to be had, once for each wish and survey: plans are drawn again every epoch."""
    told = _told.setdefault(first, set())
    if (side, wish) not in told:
        told.add((side, wish))
        _log.warning(
            "the class shares asked for (%s) cannot be had from windows of %d pixels; drawn are those that come nearest "
            "(%s). Smaller windows, or scenes with more of the rare classes, come nearer.",
            wish, side, ", ".join(f"{share:.3g}" for share in reached),
        )  # fmt: skip


_told: WeakKeyDictionary[Cells, set[tuple[int, str]]] = WeakKeyDictionary()
"""Side and wish that were told of, by the first cells of the survey they rest on: another training is told anew."""
