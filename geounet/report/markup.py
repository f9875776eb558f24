"""HTML by small functions, in which text is escaped unless it is known to be markup."""

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
"""Characters that nobody sees and that would turn the text around them."""
_VOID = ("img", "meta", "br")


class Html(str):
    """Markup, as `tag` makes it; any other string is text."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def tag(name: str, *children: Child, **attributes: str | int | None) -> Html:
    """An element; text and attributes are escaped, whatever they hold.

    Parameters
    ----------
    name : str
        Of the element.
    *children : Html, str, number, None or iterable of them
        What is inside; None is left out.
    **attributes : str, int or None
        An underscore at the end is dropped, one inside is a hyphen; None is left out.

    Examples
    --------
    >>> tag("p", "1 < 2 ", tag("b", "<script>"), class_="a")
    '<p class="a">1 &lt; 2 <b>&lt;script&gt;</b></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_clean(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" if name in _VOID else f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Child) -> Html:
    """Markup of children one after the other."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str | int | float):
        return Html(_clean(str(children)))
    return Html("".join(joined(child) for child in children))


def _clean(text: str) -> str:
    return escape(_STEERING.sub("", text))
