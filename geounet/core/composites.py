"""Which bands a person is shown as red, green and blue."""

from collections.abc import Collection, Sequence

COMPOSITES = (("red", "green", "blue"), ("nir", "red", "green"), ("nir08", "red", "green"))
"""Bands shown as red, green and blue: the first of these that are there."""


def named_composite(bands: Sequence[str]) -> tuple[int, ...] | None:
    """Places of the bands to show as red, green and blue by their names; None if the names do not say.

    Examples
    --------
    >>> named_composite(["blue", "green", "red", "nir"])
    (2, 1, 0)
    >>> named_composite(["green", "red", "nir08"])
    (2, 1, 0)
    """
    for wanted in COMPOSITES:
        if all(list(bands).count(name) == 1 for name in wanted):
            return tuple(list(bands).index(name) for name in wanted)
    return None


def shown_bands(bands: Sequence[str], typed: Collection[str] = ()) -> tuple[int, ...]:
    """Places of the bands to show: three as red, green and blue, or one in grey.

    Parameters
    ----------
    bands : sequence of str
        Names, at least one.
    typed : collection of str
        Those whose numbers are no amounts (codes, bits, angles): shown, in grey, only where there is nothing else.

    Examples
    --------
    >>> shown_bands(["landcover", "a", "b", "c", "d"], typed=["landcover"])
    (1, 2, 3)
    >>> shown_bands(["vv", "vh"])
    (0,)
    """
    named = named_composite(bands)
    if named is not None:
        return named
    amounts = [place for place, name in enumerate(bands) if name not in typed] or [0]
    return tuple(amounts[:3] if len(amounts) >= 3 else amounts[:1])
