"""Count the pixels of training scenes in one pass by dask."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from ...core.cells import Cells, cell_size, count_cells
from ...core.ordered import in_order
from ...core.stats import BandStats, ClassCounts
from ...core.windows import partition
from ...errors import BandMismatchError, ConfigError
from ..scene import Scene
from .archive import Archive, Found
from .crew import crew
from .pairs import Pair, check_bands

Values: TypeAlias = Mapping[str, Mapping[int, int]]
"""Pixels a value, by band."""

SURVEY_WINDOW = 512
"""Side, in pixels, of the windows in which whole scenes are counted."""
MOST_VALUES = 65_536
"""Distinct values of a categorical or bitmask band; a band with more is neither."""


@dataclass(frozen=True)
class Survey:
    """What the pixels of training scenes are like; two of them add."""

    stats: BandStats
    """Of the valid pixels, labelled or not."""
    counts: ClassCounts
    """Of the valid pixels, labelled or not; of no class where the scenes have no labels."""
    cells: tuple[Cells, ...] = field(default=(), repr=False)
    """Class pixels by place, one a pair, in their order."""
    values: Values = field(default_factory=dict)
    """Valid pixels a value, of each band asked about."""

    def __add__(self, other: "Survey") -> "Survey":
        return Survey(
            self.stats + other.stats,
            self.counts + other.counts,
            self.cells + other.cells,
            _merged(self.values, other.values),
        )


def survey(pairs: Sequence[Pair], *, values_of: Sequence[str] = (), cache: Path | None = None) -> Survey:
    """Band statistics over the valid pixels, class counts over the labelled ones, and where they lie: one pass by dask.

    Every number is the same, bit for bit, whatever dask's scheduler: what is added to what, and in which order,
    is fixed by the scenes alone.

    Parameters
    ----------
    pairs : sequence of Pair
        Scenes with the same bands in the same order, labels (where there are any) with the same legend.
    values_of : sequence of str
        Bands whose values are counted one by one, such as categories and bitmasks.
    cache : path, optional
        Folder in which what was counted in a scene is kept, and looked up by the content of its files and labels.

    Returns
    -------
    Survey

    Raises
    ------
    ConfigError
        There is no scene, or a band of `values_of` holds values that are no whole numbers, or more than `MOST_VALUES`
        of them.
    BandMismatchError
        The scenes lack a band of `values_of`, or differ in their bands or in their order.
    SceneError, LegendError, LabelError
        Pixels or labels cannot be read.
    OutputError
        The folder cannot be written to.
    """
    if not pairs:
        raise ConfigError("there is no scene to count pixels in; the list is empty.")
    check_bands(pairs)
    classes = next((len(pair.labels.legend) for pair in pairs if pair.labels is not None), 0)
    bands = pairs[0].scene.bands
    if missing := [name for name in values_of if name not in bands]:
        raise BandMismatchError(
            f"the values of {', '.join(missing)} are to be counted, but {pairs[0].scene.source} has the bands "
            f"{', '.join(bands)}: name bands that it has."
        )
    size = cell_size([pair.scene.grid.shape for pair in pairs], classes)
    job = _Job(classes, size, {name: bands.index(name) for name in values_of})
    total = Survey(BandStats.empty(len(bands)), ClassCounts.empty(classes), (), {name: {} for name in values_of})
    for found in _counted(pairs, job) if cache is None else _remembered(pairs, job, Archive(cache)):
        total += Survey(found.stats, _class_counts(found.cells, classes), (found.cells,), found.values)
    return total


@dataclass(frozen=True)
class _Job:
    """What to count in each scene."""

    classes: int
    size: int
    """Side of a cell, in pixels."""
    values_of: Mapping[str, int]
    """Bands whose values are counted, and where they stand in every scene, from 0."""


@dataclass(frozen=True, eq=False)
class _Row:
    """What a row of windows holds."""

    stats: BandStats
    values: Values
    cells: NDArray[np.int64]
    """(rows, cols, K + 1), as `count_cells` gives them."""


def _remembered(pairs: Sequence[Pair], job: _Job, archive: Archive) -> Iterator[Found]:
    """What each pair holds, in their order; counted, and then kept, where the archive does not have it."""
    with ThreadPoolExecutor(thread_name_prefix="geounet-survey") as pool:
        keys = list(pool.map(lambda pair: archive.key(pair, job), pairs))
    kept = [
        None if key is None else archive.find(key, pair.scene.grid.shape, job.size, tuple(job.values_of))
        for key, pair in zip(keys, pairs, strict=True)
    ]
    counted = _counted([pair for pair, one in zip(pairs, kept, strict=True) if one is None], job)
    for key, one in zip(keys, kept, strict=True):
        if one is not None:
            yield one
            continue
        found = next(counted)
        if key is not None:
            archive.keep(key, found)
        yield found


def _counted(pairs: Sequence[Pair], job: _Job) -> Iterator[Found]:
    """What each pair holds, in their order."""
    rows = [
        (index, top) for index, pair in enumerate(pairs) for top in range(0, pair.scene.grid.shape[0], SURVEY_WINDOW)
    ]
    if not rows:
        return
    count = cast("Callable[[tuple[int, int]], _Row]", _count)  # the crew adds the first argument
    with (
        crew(lambda share_memory: (pairs, job)) as hands,  # noqa: ARG005  counted once, nothing is worth keeping
        closing(in_order(hands, count, rows, 2 * hands.size)) as found,
    ):
        for index, of_pair in groupby(zip(rows, found, strict=True), key=lambda item: item[0][0]):
            yield _joined(pairs[index], [row for _, row in of_pair], job)


def _joined(pair: Pair, rows: Sequence[_Row], job: _Job) -> Found:
    """Sum of the rows of one scene, in their order."""
    values = reduce(_merged, (row.values for row in rows))
    for name, counts in values.items():
        _check_count(pair.scene, name, len(counts))
    return Found(
        sum((row.stats for row in rows), BandStats.empty(len(pair.scene.bands))),
        Cells.of(pair.scene.grid.shape, job.size, np.concatenate([row.cells for row in rows])),
        values,
    )


def _class_counts(cells: Cells, classes: int) -> ClassCounts:
    """Counts of a whole scene; of no pixel where it has no labels."""
    totals = cells.totals
    counts = np.zeros(classes, np.int64)
    counts[: cells.classes] = totals[:-1]
    return ClassCounts(counts, int(totals[-1]))


def _count(things: tuple[Sequence[Pair], _Job], place: tuple[int, int]) -> _Row:
    """Count the windows of a row, from its scene and first line; strips of the file are so decoded once."""
    (pairs, job), (index, top) = things, place
    pair = pairs[index]
    height, width = pair.scene.grid.shape
    row = Window(0, top, width, min(SURVEY_WINDOW, height - top))
    stats, cells = BandStats.empty(len(pair.scene.bands)), []
    values: Values = {name: {} for name in job.values_of}
    for part in partition((row.height, width), SURVEY_WINDOW):
        window = Window(part.col_off, top, part.width, part.height)
        chip = pair.scene.read(window)
        if pair.labels is None:
            cells.append(count_cells(np.zeros(chip.valid.shape, np.int64), chip.valid, 0, job.size))
        else:
            cells.append(count_cells(pair.labels.read(window), chip.valid, job.classes, job.size))
        stats += BandStats.of(chip.pixels, chip.valid)
        counted = {n: _distinct(chip.pixels[b], chip.valid, pair.scene, n) for n, b in job.values_of.items()}
        values = _merged(values, counted)
    return _Row(stats, values, np.concatenate(cells, axis=1))


def _distinct(pixels: NDArray[np.float32], valid: NDArray[np.bool_], scene: Scene, name: str) -> dict[int, int]:
    """Valid pixels a whole value of one band."""
    found, counts = np.unique(pixels[valid], return_counts=True)
    if not (found == np.round(found)).all():
        raise _not_typed(scene, name, "values that are no whole numbers")
    _check_count(scene, name, len(found))
    return dict(zip(found.astype(np.int64).tolist(), counts.tolist(), strict=True))


def _check_count(scene: Scene, name: str, count: int) -> None:
    if count > MOST_VALUES:
        raise _not_typed(scene, name, f"more than {MOST_VALUES} different values")


def _not_typed(scene: Scene, name: str, what: str) -> ConfigError:
    return ConfigError(
        f"band {name} of {scene.source} holds {what}, but is said to hold categories or bits: leave it continuous."
    )


def _merged(one: Values, two: Values) -> Values:
    """Pixels a value of both, by band, in the order of the values."""
    return {
        name: {v: one[name].get(v, 0) + two[name].get(v, 0) for v in sorted(one[name].keys() | two[name].keys())}
        for name in one
    }
