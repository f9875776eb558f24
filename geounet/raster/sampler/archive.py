"""What was counted in scenes, kept in a folder and found again by their content."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.cells import Cells
from ...core.stats import BandStats
from ...errors import OutputError
from ...output import atomic, check_output
from .identity import key_of
from .pairs import Pair

FORMAT = 2
"""Of the files kept; another is not read."""
SEAL = 4
"""Bytes at the end of a file: the CRC-32 of all before them."""


@dataclass(frozen=True, eq=False)
class Found:
    """What one scene holds."""

    stats: BandStats
    cells: Cells
    values: Mapping[str, Mapping[int, int]]
    """Valid pixels a value, by band."""


@dataclass(frozen=True)
class Archive:
    """A folder of files, one a scene.

    Raises
    ------
    OutputError
        The folder cannot be made or written to.
    """

    folder: Path

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder} for what is counted: {error.strerror}.") from error
        check_output(self.folder / ".survey", overwrite=True)

    def key(self, pair: Pair, job: Any) -> str | None:
        """Name of what `job` finds in a pair, which changes with whatever changes that; None if that cannot be told."""
        parts = [pair.scene] if pair.labels is None else [pair.scene, pair.labels]
        return key_of(*parts, purpose=(FORMAT, job))

    def find(self, key: str, shape: tuple[int, int], size: int, names: tuple[str, ...]) -> Found | None:
        """What was kept under a key; None if nothing was, or the file is damaged."""
        try:
            raw = self._path(key).read_bytes()
        except OSError:
            return None
        if raw[-SEAL:] != _seal(raw[:-SEAL]):
            return None
        with np.load(BytesIO(raw[:-SEAL]), allow_pickle=False) as arrays:
            (count, pixels), (mean, m2, minimum, maximum) = arrays["numbers"].tolist(), arrays["moments"]
            sketch = tuple(_mapping(arrays[f"sketch_{band}"]) for band in range(len(mean)))
            return Found(
                BandStats(count, pixels, mean, m2, minimum, maximum, sketch),
                Cells.of(shape, size, arrays["cells"]),
                {name: _mapping(arrays[f"values_{place}"]) for place, name in enumerate(names)},
            )

    def keep(self, key: str, found: Found) -> None:
        """Write what was found under its key."""
        stats = found.stats
        kinds = found.cells.classes + 1
        arrays = {
            "numbers": np.array([stats.count, stats.pixels]),
            "moments": np.stack([stats.mean, stats.m2, stats.minimum, stats.maximum]),
            "cells": np.stack([found.cells.pixels(kind) for kind in range(kinds)], axis=-1),
            **{f"sketch_{band}": _array(bins) for band, bins in enumerate(stats.sketch)},
            **{f"values_{place}": _array(pixels) for place, pixels in enumerate(found.values.values())},
        }
        raw = BytesIO()
        np.savez_compressed(raw, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
        with atomic(self._path(key), overwrite=True) as part:
            part.write_bytes(raw.getvalue() + _seal(raw.getvalue()))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.survey"


def _seal(raw: bytes) -> bytes:
    return zlib.crc32(raw).to_bytes(SEAL, "little")


def _array(pixels: Mapping[int, int]) -> NDArray[np.int64]:
    """Mapping as two rows, in its order."""
    return np.array([list(pixels.keys()), list(pixels.values())], np.int64)


def _mapping(rows: NDArray[np.int64]) -> dict[int, int]:
    return dict(zip(*rows.tolist(), strict=True))
