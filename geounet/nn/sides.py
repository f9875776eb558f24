"""The eight sides that a square can be seen from, without a pixel being mixed with another."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from array_api_compat import array_namespace

Array: TypeAlias = Any
Views: TypeAlias = Literal["none", "flips", "d4"]

FLIPS = 4
"""Sides below this number keep the shape of what is not square."""
SIDES: Mapping[str, tuple[int, ...]] = {"none": (0,), "flips": tuple(range(FLIPS)), "d4": tuple(range(8))}
"""Sides by name: as it is; with rows or columns or both in reverse; and also with rows for columns, which makes the
dihedral group D4 of flips and quarter turns."""


def seen_from(pixels: Array, side: int) -> Array:
    """Pixels (..., H, W) from one of eight sides: bits flip rows, flip columns, and swap rows with columns.

    From sides 4 to 7 they are (..., W, H).
    """
    xp = array_namespace(pixels)
    flips = tuple(axis for bit, axis in ((1, -2), (2, -1)) if side & bit)
    pixels = xp.flip(pixels, axis=flips) if flips else pixels
    return _swapped(pixels) if side & FLIPS else pixels


def seen_back(pixels: Array, side: int) -> Array:
    """Pixels (..., H, W) as they were before they were `seen_from` a side."""
    xp = array_namespace(pixels)
    pixels = _swapped(pixels) if side & FLIPS else pixels
    flips = tuple(axis for bit, axis in ((1, -2), (2, -1)) if side & bit)
    return xp.flip(pixels, axis=flips) if flips else pixels


def _swapped(pixels: Array) -> Array:
    return array_namespace(pixels).matrix_transpose(pixels)
