"""Where windows may lie: how likely each scene is, and which places in it have enough labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...core.cells import Cells
from ...errors import ConfigError
from .pairs import Pair

Integers: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

ROUNDING = 1e-6
"""Pixels by which sums of parts of cells are off at most."""
TRIES = 64
"""Places tried in a scene before one known to have enough labels is taken."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Windows as columns: scene, first row, first column, (N,) each."""

    scene: Integers
    top: Integers
    left: Integers

    def __len__(self) -> int:
        return len(self.scene)

    def take(self, which: NDArray[np.generic]) -> "Drawn":
        """Some of them, by place or by mask."""
        return Drawn(self.scene[which], self.top[which], self.left[which])

    def by_scene(self) -> Iterator[tuple[int, Integers]]:
        """Each scene that occurs, and where."""
        order = np.argsort(self.scene, kind="stable")
        scenes, starts = np.unique(self.scene[order], return_index=True)
        for scene, first, stop in zip(scenes.tolist(), starts, [*starts[1:], len(order)], strict=False):
            yield scene, order[first:stop]

    @classmethod
    def join(cls, parts: Sequence["Drawn"]) -> "Drawn":
        """All windows of some parts, one after the other."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("scene", "top", "left")))


@dataclass(frozen=True, eq=False)
class Ground:
    """Where windows may lie, and how likely each scene is."""

    shapes: Integers
    """(S, 2), pixels."""
    side: int
    chance: Floats
    """Of each scene, (S,); they sum to 1."""
    places: Floats
    """Windows of each scene that may be drawn, (S,)."""
    cells: Sequence[Cells] | None
    min_valid: float

    @classmethod
    def of(
        cls, pairs: Sequence[Pair], side: int, group_power: float, cells: Sequence[Cells] | None, min_valid: float
    ) -> "Ground":
        """Ground of scenes drawn by group and area.

        Raises
        ------
        ConfigError
            No window has the labels asked for.
        """
        shapes = np.array([pair.scene.grid.shape for pair in pairs], np.int64)
        part = np.ones(len(pairs))
        if cells and min_valid:
            part = np.array([_part_with_enough(one, side, min_valid) for one in cells])
            if not part.any():
                raise ConfigError(
                    f"no window of {side} pixels has labels on {min_valid:.0%} of its pixels: lower min_valid or "
                    "chip_size, or look at nodata, labels and ignored codes."
                )
        chance = _chances([pair.group for pair in pairs], shapes.prod(axis=1) * part, group_power)
        return cls(shapes, side, chance, np.maximum(shapes - side + 1, 1).prod(axis=1) * part, cells, min_valid)

    def draw(self, count: int, rng: np.random.Generator) -> Drawn:
        """Windows by the chance of their scene, and anywhere in it where there are enough labels."""
        scene = rng.choice(len(self.chance), size=count, p=self.chance)
        drawn = self._place(scene, rng.random((count, 2)))
        if not self.min_valid:
            return drawn
        top, left = drawn.top.copy(), drawn.left.copy()
        wanting = np.flatnonzero(~self.enough(drawn))
        for _ in range(TRIES):
            if not len(wanting):
                break
            again = self._place(scene[wanting], rng.random((len(wanting), 2)))
            top[wanting], left[wanting] = again.top, again.left
            wanting = wanting[~self.enough(again)]
        for index, where in Drawn(scene[wanting], top[wanting], left[wanting]).by_scene():
            tops, lefts = _places_with_enough(self._cells[index], self.side, self.min_valid)
            chosen = rng.integers(len(tops), size=len(where))
            top[wanting[where]], left[wanting[where]] = tops[chosen], lefts[chosen]
        return Drawn(scene, top, left)

    def enough(self, drawn: Drawn) -> NDArray[np.bool_]:
        """Tell which windows have the labels asked for."""
        kept = np.ones(len(drawn), np.bool_)
        if self.min_valid:
            for scene, where in drawn.by_scene():
                kept[where] = has_enough(
                    self._cells[scene], drawn.top[where], drawn.left[where], self.side, self.min_valid
                )
        return kept

    @property
    def density(self) -> Floats:
        """Chance of each single window of a scene, (S,); 0 where none may be drawn."""
        density = np.zeros(len(self.chance))
        np.divide(self.chance, self.places, out=density, where=self.places > 0)
        return density

    @property
    def _cells(self) -> Sequence[Cells]:
        assert self.cells is not None
        return self.cells

    def _place(self, scene: Integers, part: Floats) -> Drawn:
        """Windows at relative places, (N, 2), of their scenes; centred along an axis that is shorter."""
        room = self.shapes[scene] - self.side
        start = np.where(room > 0, (part * (room + 1)).astype(np.int64), room // 2)
        return Drawn(scene, start[:, 0], start[:, 1])


def _chances(groups: Sequence[str], area: Floats, power: float) -> Floats:
    """Chance of each scene, (S,): of its group by its area to a power, and within by the scene's own."""
    names = [group or f"\0{index}" for index, group in enumerate(groups)]  # a scene without a group stands alone
    number = np.unique(names, return_inverse=True)[1]
    total = np.bincount(number, area)[number]
    share = np.zeros(len(area))
    np.divide(area, total, out=share, where=area > 0)
    share *= np.where(total > 0, total, 1.0) ** power
    share /= share.sum()
    return share


def _starts(cells: Cells, side: int, axis: int) -> Integers:
    """Every start of a window along an axis at which one of its ends meets a cell's; between them content is linear."""
    last = cells.shape[axis] - side
    if last <= 0:
        return np.array([last // 2])
    ends = np.arange(0, cells.shape[axis] + 1, cells.size)
    starts = np.concatenate([ends, ends - side, [last]])
    return np.unique(starts[(starts >= 0) & (starts <= last)])


def _places_with_enough(cells: Cells, side: int, min_valid: float) -> tuple[Integers, Integers]:
    """Tops and lefts of windows on a lattice that have the labels asked for; none if no window anywhere has."""
    tops, lefts, enough = _lattice_with_enough(cells, side, min_valid)
    rows, cols = np.nonzero(enough)
    return tops[rows], lefts[cols]


def _part_with_enough(cells: Cells, side: int, min_valid: float) -> float:
    """Part of a scene's windows that have the labels asked for, as the lattice finds it."""
    return float(_lattice_with_enough(cells, side, min_valid)[2].mean())


def _lattice_with_enough(cells: Cells, side: int, min_valid: float) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Tops, lefts and, of every top and left, whether that window has the labels asked for."""
    tops, lefts = (_starts(cells, side, axis) for axis in (0, 1))
    usable = cells.labelled().lattice(tops, lefts, side)[:, :, 0]
    return tops, lefts, _is_enough(usable, cells.area(tops[:, None], lefts, side), min_valid)


def has_enough(cells: Cells, tops: Integers, lefts: Integers, side: int, min_valid: float) -> NDArray[np.bool_]:
    """Tell which windows have a part `min_valid` of labelled pixels; of valid ones in a scene without labels."""
    inside = cells.inside(tops, lefts, side)
    usable = inside[:, : cells.classes or 1].sum(axis=1)
    return _is_enough(usable, cells.area(tops, lefts, side), min_valid)


def _is_enough(usable: Floats, area: Floats, min_valid: float) -> NDArray[np.bool_]:
    enough: NDArray[np.bool_] = usable >= np.maximum(min_valid * area - ROUNDING, ROUNDING if min_valid else -ROUNDING)
    return enough


def content_of(cells: Sequence[Cells], drawn: Drawn, side: int) -> Floats:
    """Labelled pixels of each class in each window, (N, K)."""
    content = np.zeros((len(drawn), max(one.classes for one in cells)))
    for scene, where in drawn.by_scene():
        inside = cells[scene].inside(drawn.top[where], drawn.left[where], side)
        content[where, : cells[scene].classes] = inside[:, :-1]
    return content
