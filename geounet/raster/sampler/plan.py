"""Plan where chips are cut: pure, seeded, and known before anything is read."""

from collections.abc import Sequence

import numpy as np
from rasterio.windows import Window

from ...core.cells import Cells
from ...core.windows import partition
from ...errors import ConfigError
from .pairs import Pair, Sample
from .places import Drawn, Floats, Ground, content_of, has_enough
from .shares import Shares, balanced


def plan_random(
    pairs: Sequence[Pair],
    chip_size: int,
    count: int,
    rng: np.random.Generator,
    *,
    group_power: float = 1.0,
    cells: Sequence[Cells] | None = None,
    min_valid: float = 0.0,
    shares: Shares | None = None,
) -> list[Sample]:
    """Windows drawn at random: first a group, then a scene of it by its area, then a place in the scene.

    Parameters
    ----------
    pairs : sequence of Pair
        What to draw from.
    chip_size : int
        Side of a window, in pixels. A smaller scene is taken whole, with the window sticking out evenly.
    count : int
        How many windows.
    rng : numpy.random.Generator
        The only source of chance: equal states give equal plans.
    group_power : float
        A group is drawn in proportion to its area to this power: 1 draws every pixel alike, 0 every group alike,
        so that one place with many scenes does not drown the others.
    cells : sequence of Cells, optional
        What a survey of the pairs has counted, one a pair; needed for `min_valid` and `shares`.
    min_valid : float
        Part, from 0 to 1, of a window's pixels inside the scene that have data and a label (data alone where the
        pair has no labels). Windows with less, as the cells tell, are not drawn, and the area of a scene is that of the
        others. The cells of small scenes are single pixels; larger ones take what their edges cut to be spread evenly.
    shares : mapping of str or int to float, or 'equal', optional
        Share that each class named, by name or code, has on average among the labelled pixels drawn; the other
        classes divide the rest about in the proportion they have. Of all ways of drawing labelled windows that reach this,
        the one nearest to the plain draw is taken; see `geounet.core.balance.tilt`. Shares that the windows cannot
        give are approached as near as they can, which the log tells once.

    Raises
    ------
    ConfigError
        There is no scene, or `chip_size` or `count` is out of range; no window has the labels that `min_valid` asks
        for; `shares` names a class twice, or one that is unknown or does not occur, or asks for more, or less, than
        there is to share.
    """
    if not pairs:
        raise ConfigError("there is no scene to draw windows from; the list is empty.")
    _check_size(chip_size)
    if count < 0:
        raise ConfigError(f"{count} windows cannot be drawn; ask for 0 or more.")
    if cells is None and (min_valid or shares is not None):
        raise ValueError("min_valid and shares rest on what a survey has counted: pass its cells.")
    ground = Ground.of(pairs, chip_size, group_power, cells, min_valid)
    drawn = ground.draw(count, rng) if not shares else balanced(pairs, ground, count, rng, shares)
    return [
        Sample(scene, Window(left, top, chip_size, chip_size))
        for scene, top, left in zip(drawn.scene.tolist(), drawn.top.tolist(), drawn.left.tolist(), strict=True)
    ]


def plan_grid(
    pairs: Sequence[Pair], chip_size: int, *, cells: Sequence[Cells] | None = None, min_valid: float = 0.0
) -> list[Sample]:
    """Windows side by side that hold every pixel of every scene once; those at the end stick out.

    Parameters
    ----------
    pairs : sequence of Pair
    chip_size : int
        Side of a window, in pixels.
    cells : sequence of Cells, optional
        What a survey of the pairs has counted, one a pair.
    min_valid : float
        Part of a window's pixels inside the scene that have data and a label; windows with less are left out. With
        any value above 0, those without a label are; with a very small one, no labelled pixel is lost.

    Raises
    ------
    ConfigError
        `chip_size` is out of range.
    """
    _check_size(chip_size)
    if cells is None and min_valid:
        raise ValueError("min_valid rests on what a survey has counted: pass its cells.")
    plan = []
    for index, pair in enumerate(pairs):
        windows = list(partition(pair.scene.grid.shape, chip_size))
        tops, lefts = (np.array([getattr(w, name) for w in windows]) for name in ("row_off", "col_off"))
        kept = has_enough(cells[index], tops, lefts, chip_size, min_valid) if cells else np.ones(len(windows), np.bool_)
        plan += [
            Sample(index, Window(left, top, chip_size, chip_size))
            for top, left in zip(tops[kept].tolist(), lefts[kept].tolist(), strict=True)
        ]
    return plan


def _check_size(chip_size: int) -> None:
    if chip_size < 1:
        raise ConfigError(f"a window of {chip_size} pixels has no side; chip_size is 1 or more.")


def plan_shares(plan: Sequence[Sample], cells: Sequence[Cells]) -> Floats:
    """Share of each class among the labelled pixels of a plan, (K,), as the cells know it; NaN without a label."""
    side = plan[0].window.width if plan else 1
    corners = [(sample.scene, sample.window.row_off, sample.window.col_off) for sample in plan]
    drawn = Drawn(*np.array(corners, np.int64).reshape(-1, 3).T)
    total = content_of(cells, drawn, side).sum(axis=0)
    return total / total.sum() if total.sum() else np.full_like(total, np.nan)
