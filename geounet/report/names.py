"""Names of scenes, as short as tells them apart."""

import re
from collections.abc import Iterable


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The last parts of each path, as many for all as it takes to tell them apart; what follows a ``?`` is left out.

    Queries of signed addresses are keys to somebody's storage, and a report is handed on.

    Examples
    --------
    >>> list(short_names(["/a/north.tif", "/b/south.tif"]).values())
    ['north.tif', 'south.tif']
    >>> list(short_names(["s3://data/2019/image.tif", "https://data/2020/image.tif?sig=secret"]).values())
    ['2019/image.tif', '2020/image.tif']
    """
    parts = {name: re.split(r"[/\\]+", without_query(name).rstrip("/\\")) for name in dict.fromkeys(names)}
    distinct = len({tuple(one) for one in parts.values()})
    short = {}
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        short = {name: "/".join(one[-depth:]) for name, one in parts.items()}
        if len(set(short.values())) == distinct:
            break
    return short


def without_query(text: str) -> str:
    """Text whose addresses have lost their queries.

    Examples
    --------
    >>> without_query("read from https://host/a.tif?sv=1&sig=secret today")
    'read from https://host/a.tif today'
    """
    return re.sub(r"(\w+://[^\s?\"']*)\?[^\s\"']*", r"\1", text)


def elided(text: str, longest: int) -> str:
    """Text without its middle where it is longer.

    Examples
    --------
    >>> elided("S2B_MSIL2A_20240701_T33UUP.tif", 16)
    'S2B_MSI…3UUP.tif'
    """
    if len(text) <= longest:
        return text
    back = longest // 2
    return f"{text[: longest - 1 - back]}…{text[-back:]}"
