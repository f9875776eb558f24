"""Class codes in files, ids in the network, names and colours for people."""

import colorsys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import LegendError

IGNORE = 255
"""Id of a pixel with no label, no loss and no prediction; torch's `ignore_index`."""

Colour: TypeAlias = tuple[int, int, int]

_KNOWN: Mapping[str, Colour] = {
    "water": (38, 115, 178), "land": (222, 214, 196), "not_water": (222, 214, 196), "background": (222, 214, 196),
    "forest": (28, 99, 48), "tree": (28, 99, 48), "trees": (28, 99, 48), "tree_cover": (28, 99, 48),
    "shrubland": (179, 138, 51), "grassland": (171, 204, 92), "grass": (171, 204, 92), "vegetation": (92, 160, 72),
    "crop": (240, 190, 90), "cropland": (240, 190, 90), "bare": (166, 141, 122), "built": (200, 60, 60),
    "built_up": (200, 60, 60), "builtup": (200, 60, 60), "building": (200, 60, 60), "snow": (240, 240, 250),
    "wetland": (60, 160, 150), "cleared": (222, 184, 135),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class of a legend."""

    code: int
    """Value in label and mask files."""
    name: str
    color: Colour
    """Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class Legend:
    """Classes in the order of their ids, 0 … K-1."""

    classes: tuple[ClassInfo, ...]

    def __post_init__(self) -> None:
        codes, names = [c.code for c in self.classes], [c.name for c in self.classes]
        if not 1 <= len(codes) < 2**16 - 1:
            raise LegendError(f"a legend has from 1 to 65534 classes, not {len(codes)}.")
        checks: list[tuple[str, list[Any]]] = [("code", codes), ("name", names)]
        for what, values in checks:
            twice = [str(value) for value, count in Counter(values).items() if count > 1]
            if twice:
                raise LegendError(f"class {what} {_some(twice)} is given more than once; each class needs its own.")

    @classmethod
    def of(
        cls, names: Mapping[int, str] | Sequence[str], colors: Mapping[int | str, Sequence[int] | str] | None = None
    ) -> "Legend":
        """Legend from names by code, or from names alone, whose codes then count from 0.

        Parameters
        ----------
        names : mapping of int to str, or sequence of str
            ``{10: "trees", 80: "water"}``; ids follow the order given.
        colors : mapping, optional
            By code or name, ``(r, g, b)`` or ``"#rrggbb"``. Well-known names have a colour of their own; the rest
            are spread round the colour circle.

        Raises
        ------
        LegendError
            A code is not a whole number, or a code or name is given twice.

        Examples
        --------
        >>> Legend.of({10: "trees", 80: "water"}).names
        ('trees', 'water')
        """
        pairs = list(names.items()) if isinstance(names, Mapping) else list(enumerate(names))
        given = {str(key): parse_color(value) for key, value in (colors or {}).items()}
        classes = []
        for place, (code, name) in enumerate(pairs):
            if isinstance(code, bool) or int(code) != code:
                raise LegendError(f"class code {code!r} ({name}) is not a whole number.")
            key = str(name).strip().lower().replace(" ", "_").replace("-", "_")
            color = given.get(str(code)) or given.get(str(name)) or _KNOWN.get(key) or _spread(place)
            classes.append(ClassInfo(int(code), str(name), color))
        return cls(tuple(classes))

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(c.name for c in self.classes)

    @property
    def codes(self) -> tuple[int, ...]:
        """Class codes in the order of their ids."""
        return tuple(c.code for c in self.classes)

    @property
    def ignore_index(self) -> int:
        """Id that stands for no class: 255, or 65535 where there are that many classes."""
        return IGNORE if len(self) <= IGNORE else 2**16 - 1

    @property
    def id_dtype(self) -> np.dtype[np.unsignedinteger]:
        """Smallest type for ids and `ignore_index`."""
        return np.dtype(np.uint8 if len(self) <= IGNORE else np.uint16)

    @cached_property
    def nodata(self) -> int:
        """Code that masks use for no class: the largest that `dtype` holds (the smallest of a signed one)."""
        info = np.iinfo(self.dtype)
        return int(info.min if info.min else info.max)

    @cached_property
    def dtype(self) -> np.dtype[np.integer]:
        """Smallest integer type of a mask file that holds all codes, and one more for nodata."""
        low, high = min(self.codes), max(self.codes)
        for kind in (np.uint8, np.uint16, np.int16, np.int32):
            info = np.iinfo(kind)
            spare_low, spare_high = (0, 1) if info.min == 0 else (1, 0)
            if info.min + spare_low <= low and high <= info.max - spare_high:
                return np.dtype(kind)
        raise LegendError(f"class codes from {low} to {high} do not fit a 32-bit integer.")

    def encode(
        self, codes: NDArray[np.generic], *, ignore: Iterable[int] = (), unknown: str = "raise", source: str = "labels"
    ) -> NDArray[np.unsignedinteger]:
        """Ids of the classes whose codes are given, same shape; `ignore_index` where there is no class.

        Parameters
        ----------
        codes : array of integers, or of floats that hold integers or NaN (no class)
        ignore : iterable of int
            Codes that mean no class, beside NaN.
        unknown : {'raise', 'ignore'}
            What to do with codes that are in neither list.
        source : str
            What the message calls the array.

        Raises
        ------
        LegendError
            There are unknown codes; the message names them and the known ones.
        """
        codes = np.asarray(codes)
        values, places = _distinct(codes)
        ids = {code: i for i, code in enumerate(self.codes)}
        skipped = {int(code) for code in ignore}
        table = np.full(len(values), self.ignore_index, self.id_dtype)
        strange = []
        for place, value in enumerate(values.tolist()):
            if value in ids:
                table[place] = ids[value]
            elif not np.isnan(value) and value not in skipped:
                strange.append(value)
        if strange and unknown == "raise":
            shown = _some([str(int(v)) if float(v).is_integer() else f"{v:g}" for v in strange])
            known = _some([f"{c.code} {c.name}" for c in self.classes])
            raise LegendError(
                f"{source} has the class code {shown}, which the legend does not know ({known}). "
                "Add it to the legend, list it under ignore, or pass unknown='ignore'."
            )
        return table[places].reshape(codes.shape)

    def decode(self, ids: NDArray[np.unsignedinteger]) -> NDArray[np.integer]:
        """Codes of the classes whose ids are given, same shape, `dtype`; `nodata` where the id is `ignore_index`."""
        codes: NDArray[np.integer] = self._codes_by_id[ids]
        return codes

    @cached_property
    def _codes_by_id(self) -> NDArray[np.integer]:
        table = np.full(self.ignore_index + 1, self.nodata, self.dtype)
        table[: len(self)] = self.codes
        return table

    def to_dicts(self) -> list[dict[str, object]]:
        """Classes as plain values for JSON: id, code, name, color."""
        return [{"id": i, "code": c.code, "name": c.name, "color": list(c.color)} for i, c in enumerate(self.classes)]

    @classmethod
    def from_dicts(cls, rows: Sequence[Mapping[str, object]]) -> "Legend":
        """Undo `to_dicts`.

        Raises
        ------
        LegendError
            A row lacks a key, a value is of the wrong kind, or the ids do not count from 0 in order.
        """
        try:
            ids = [r["id"] for r in rows]
            legend = cls(tuple(ClassInfo(int(r["code"]), str(r["name"]), parse_color(r["color"])) for r in rows))  # type: ignore[call-overload, arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise LegendError(f"classes need id, code, name and color; found {rows!r}.") from error
        if ids != list(range(len(ids))):
            raise LegendError(f"class ids count from 0 in order; found {_some([str(i) for i in ids])}.")
        return legend


def _distinct(codes: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.intp]]:
    """Values that occur, ascending, and the place of each code among them; counted, not sorted, where types are small."""
    if codes.dtype.kind in "iu" and codes.dtype.itemsize <= 2 and codes.size:
        low = int(codes.min())
        above = codes.ravel().astype(np.intp) - low
        occurs = np.bincount(above) > 0
        return np.flatnonzero(occurs) + low, (np.cumsum(occurs) - 1)[above]
    values, places = np.unique(codes, return_inverse=True)
    return values, places.ravel()


def _some(texts: Sequence[str], most: int = 10) -> str:
    """The first of some texts, and a sign that there are more."""
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")


def parse_color(value: Sequence[int] | str) -> Colour:
    """Red, green and blue, 0 to 255, of ``"#rrggbb"`` or of three numbers.

    Raises
    ------
    LegendError
        It is neither.

    Examples
    --------
    >>> parse_color("#ff8000")
    (255, 128, 0)
    """
    if isinstance(value, str):
        digits = value.removeprefix("#")
        try:
            red, green, blue = bytes.fromhex(digits)
        except ValueError:
            raise LegendError(f"colour {value!r} is not of the form #rrggbb.") from None
        return red, green, blue
    try:
        red, green, blue = (int(v) for v in value)
    except (TypeError, ValueError):
        raise LegendError(f"colour {value!r} is not (red, green, blue).") from None
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise LegendError(f"colour {value!r} is not within 0 to 255.")
    return red, green, blue


def hex_color(color: Sequence[int]) -> str:
    """``#rrggbb`` of red, green and blue, 0 to 255.

    Examples
    --------
    >>> hex_color((255, 128, 0))
    '#ff8000'
    """
    return "#" + bytes(color).hex()


def _spread(place: int) -> Colour:
    """Colour number `place` of an endless list, hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb((place * 0.618034 + 0.08) % 1, 0.62, 0.9 - 0.25 * (place % 3) / 2)
    return round(red * 255), round(green * 255), round(blue * 255)
