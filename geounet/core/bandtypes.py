"""What the numbers of a band mean, and how many channels a network sees them as.

Reflectance is a quantity; a land cover code, a word of quality flags and an aspect in degrees are not: code 20 is no
closer to 10 than to 90, bit 4 of a flag word says nothing of bit 3, and 359° lies beside 1°. A network that is shown
such numbers as quantities learns their accidents, so each kind has channels of its own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from operator import index
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Kind: TypeAlias = Literal["continuous", "categorical", "bitmask", "cyclic"]

EXACT_BITS = 24
"""float32, in which bands are read, tells all whole numbers of fewer bits than this from their neighbours, and no more."""
MOST_CODES = 64
"""Codes that are taken from the data alone; a band of more is hardly one of classes, and each takes a channel."""
ABSENT = -(2.0**100)
"""Stands for no data in a band of codes, flags or angles: no band has the value, and each kind makes zeros of it."""

_BELONGS: Mapping[str, str] = {"codes": "categorical", "bits": "bitmask", "period": "cyclic"}


@dataclass(frozen=True)
class BandType:
    """How the values of a band are to be read.

    Raises
    ------
    ConfigError
        The kind is unknown, a field belongs to another kind, a code or bit is given twice, is no whole number or is
        more than float32 holds, or the period is not above 0.

    Examples
    --------
    >>> BandType().channels
    1
    >>> BandType("categorical", codes=(10, 20, 80)).channels
    3
    >>> BandType("bitmask", bits=(3, 4)).channels  # cloud and cloud shadow of Landsat's QA_PIXEL
    2
    >>> BandType("cyclic", period=360).channels
    2
    """

    kind: Kind = "continuous"
    """``continuous`` is standardised; ``categorical`` gets a channel a code, 1 where the band has it; ``bitmask`` a
    channel a bit, 1 where it is set; ``cyclic`` the sine and the cosine of its phase."""
    codes: tuple[int, ...] = ()
    """Of a categorical band, in the order of the channels; empty until training has seen them. A code that is not
    among them has zeros in all channels."""
    bits: tuple[int, ...] = ()
    """Of a bitmask, in the order of the channels, counted from 0, the least significant; empty until training has
    seen which vary. Negative values are two's complement, as a signed type stores them."""
    period: float | None = None
    """Of a cyclic band, in its unit: 360 for degrees, 365.25 for days."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"the kind of a band is one of {', '.join(get_args(Kind))}, not {self.kind!r}.")
        for name, kind in _BELONGS.items():
            if getattr(self, name) not in ((), [], None) and self.kind != kind:
                raise ConfigError(f"a band with {name} is {kind}, but the kind given is {self.kind}.")
        object.__setattr__(self, "codes", _whole_numbers("code", self.codes, -(2**EXACT_BITS) + 1))
        object.__setattr__(self, "bits", _whole_numbers("bit", self.bits, 0))
        if self.kind == "cyclic":
            object.__setattr__(self, "period", _period(self.period))

    @classmethod
    def of(cls, given: "BandType | str | Mapping[str, Any]") -> "BandType":
        """Type from its kind alone, or from plain values as `to_dict` gives them.

        Raises
        ------
        ConfigError
            A key is unknown, or as the class says.

        Examples
        --------
        >>> BandType.of("categorical")
        BandType(kind='categorical', codes=(), bits=(), period=None)
        >>> BandType.of({"kind": "bitmask", "bits": [3, 4]}).bits
        (3, 4)
        """
        if isinstance(given, BandType):
            return given
        if isinstance(given, str):
            return cls(given)  # type: ignore[arg-type]  # refused there if it is none
        if not isinstance(given, Mapping):
            raise ConfigError(f"a band's type is a kind or a mapping with one, not {given!r}.")
        strange = [str(key) for key in given if key not in ("kind", *_BELONGS)]
        if strange:
            raise ConfigError(f"a band's type has kind, codes, bits and period, but not {', '.join(strange)}.")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, of this kind's fields alone; `of` undoes it.

        Examples
        --------
        >>> BandType("cyclic", period=360).to_dict()
        {'kind': 'cyclic', 'period': 360.0}
        """
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if _BELONGS.get(key, self.kind) == self.kind}

    def __str__(self) -> str:
        match self.kind:
            case "categorical":
                return f"categorical, codes {', '.join(map(str, self.codes)) or 'not known yet'}"
            case "bitmask":
                return f"bitmask, bits {', '.join(map(str, self.bits)) or 'not known yet'}"
            case "cyclic":
                return f"cyclic, period {self.period:g}"
        return self.kind

    @property
    def typed(self) -> bool:
        """True if the values are no quantities, so that nothing may be added to them or averaged."""
        return self.kind != "continuous"

    @property
    def complete(self) -> bool:
        """True if it is known which channels there are."""
        return self.channels > 0

    @property
    def channels(self) -> int:
        """Channels that a network sees the band as; 0 while codes or bits are not known."""
        match self.kind:
            case "categorical":
                return len(self.codes)
            case "bitmask":
                return len(self.bits)
        return 2 if self.kind == "cyclic" else 1

    def with_codes(self, values: Iterable[float], band: str = "the band") -> "BandType":
        """Type with the codes, or bits, that were seen in training, where none were given.

        Parameters
        ----------
        values : iterable of numbers
            Different values of the valid pixels.
        band : str
            What messages call the band.

        Returns
        -------
        BandType
            Codes in ascending order, or the bits that are set in some of the values and not in all. A type whose
            codes or bits are given stays as it is, and so do the other kinds.

        Raises
        ------
        ConfigError
            The values are no whole numbers that float32 holds exactly, there are none, there are more than
            `MOST_CODES`, or no bit varies.

        Examples
        --------
        >>> BandType("categorical").with_codes([80, 10, 20]).codes
        (10, 20, 80)
        >>> BandType("bitmask").with_codes([0b1000, 0b1010, 0b1100]).bits
        (1, 2)
        """
        if self.kind not in ("categorical", "bitmask"):
            return self
        seen = _seen(values, self.kind, band)
        if self.complete:
            return self
        if not seen.size:
            raise ConfigError(f"{band} has no valid pixel in training, so its {self.kind} values are not known.")
        if self.kind == "bitmask":
            return BandType("bitmask", bits=_varying(seen, band))
        if seen.size > MOST_CODES:
            raise ConfigError(
                f"{band} has {seen.size} different values ({_some(seen)}), more than the {MOST_CODES} that are taken for "
                "codes of a categorical band. Name the codes that matter (codes: [10, 20, …]), or read it as a "
                "continuous band or a bitmask."
            )
        return BandType("categorical", codes=tuple(seen.tolist()))


def _whole_numbers(what: str, given: Sequence[Any], low: int) -> tuple[int, ...]:
    """Codes or bits as Python's integers, if float32 tells them apart."""
    high = EXACT_BITS - 1 if what == "bit" else 2**EXACT_BITS - 1
    try:
        found = [index(number) for number in given]
    except TypeError:
        found = None
    if found is None or any(isinstance(number, bool) for number in given):
        raise ConfigError(f"{what}s are a list of whole numbers, not {given!r}.")
    beyond = [number for number in found if not low <= number <= high]
    if beyond:
        raise ConfigError(
            f"{what} {beyond[0]} is not within {low} to {high}; bands are read as float32, which holds no more exactly."
        )
    twice = sorted(number for number, count in Counter(found).items() if count > 1)
    if twice:
        raise ConfigError(f"{what} {', '.join(map(str, twice))} is given more than once.")
    return tuple(found)


def _period(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not (isfinite(given) and given > 0):
        raise ConfigError(
            f"a cyclic band has a period above 0, in its unit (360 for degrees); found {given!r}: give period."
        )
    return float(given)


def _seen(values: Iterable[float], kind: str, band: str) -> NDArray[np.int64]:
    """Different values, ascending, if they are whole and float32 kept them."""
    seen = np.unique(np.asarray(values if isinstance(values, np.ndarray) else list(values), np.float64))
    broken = seen[seen != np.round(seen)]  # NaN as well
    if broken.size:
        raise ConfigError(
            f"{band} holds {broken[0]:g}, but the values of a {kind} band are whole numbers; if it is a quantity, its "
            "type is continuous."
        )
    beyond = seen[np.abs(seen) >= 2**EXACT_BITS]
    if beyond.size:
        raise ConfigError(
            f"{band} holds {beyond[-1]:.0f}; bands are read as float32, which holds whole numbers exactly only below "
            f"{2**EXACT_BITS}, so the {kind} values cannot be told apart. Store what matters of it in a band of at most "
            "16 bits."
        )
    return seen.astype(np.int64)


def _varying(seen: NDArray[np.int64], band: str) -> tuple[int, ...]:
    """Bits that are set in some values and not in all; of negative ones, in the smallest type that holds them."""
    low, high = int(seen.min()), int(seen.max())
    width = max(high.bit_length(), (~low).bit_length() + 1 if low < 0 else 0)
    if low < 0:  # above the type's own bits, those of a negative number are all set, and say nothing
        width = next((size for size in (8, 16) if width <= size), EXACT_BITS)
    some, all_ = int(np.bitwise_or.reduce(seen)), int(np.bitwise_and.reduce(seen))
    bits = tuple(bit for bit in range(width) if (some ^ all_) >> bit & 1)
    if not bits:
        raise ConfigError(
            f"{band} has the value {_some(seen)} throughout training, so none of its bits says anything. Leave the band "
            "out, or name the bits that matter (bits: [3, 4])."
        )
    return bits


def _some(values: NDArray[np.int64], most: int = 6) -> str:
    return ", ".join(map(str, values[:most].tolist())) + (", …" if values.size > most else "")


CONTINUOUS = BandType()
"""A quantity, as most bands hold."""
