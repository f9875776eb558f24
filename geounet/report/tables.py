"""Tables of a page."""

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any

from ..core.legend import Legend, hex_color
from .markup import Child, Html, joined, tag

SCORES = ("iou", "f1", "precision", "recall")
_HEADINGS = {"iou": "IoU", "f1": "F1", "precision": "precision", "recall": "recall"}


def table(
    caption: Child,
    head: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    foot: Sequence[Child] = (),
    kind: str | None = None,
) -> Html:
    """A table whose first column names the rows, and whose others are numbers, or ``words``, as `kind` says."""
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", [tag("th", one, scope="col") for one in head])),
            tag("tbody", [_row(row) for row in rows]),
            tag("tfoot", _row(foot)) if foot else None,
            class_=kind,
        ),
        class_="wide",
    )


def _row(cells: Sequence[Child]) -> Html:
    return tag("tr", tag("th", cells[0], scope="row"), [tag("td", cell) for cell in cells[1:]])


def facts(values: Mapping[str, Child]) -> Html:
    """Names and values, two by two; what is None or empty is left out."""
    known = {name: value for name, value in values.items() if value not in (None, "")}
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in known.items()])


def scores(caption: str, report: Mapping[str, Any], legend: Legend) -> Html:
    """Scores of each class and over all, from `Evaluation.report`."""
    rows: list[list[Child]] = []
    for info in legend.classes:
        values = report["classes"][info.name]
        cells: list[Child] = [measured(values["iou"], decimal)]
        cells += [decimal(values[name]) for name in SCORES[1:]]
        rows.append([named(info.name, info.color), *cells, f"{values['support']:,}"])
    macro = report["macro"]
    foot = ["mean of classes", measured(macro["iou"], decimal), decimal(macro["f1"]), "", "", ""]
    head = ["class", *(_HEADINGS[name] for name in SCORES), "pixels"]
    accuracy = percent(report["micro"]["accuracy"])
    said = f"{caption}: {accuracy} of {report['pixels']:,} labelled pixels are right; {report['ignored']:,} have no label, or no data."
    return table(said, head, rows, foot)


def shares(counts: Mapping[str, Sequence[int]], legend: Legend) -> Html:
    """Part of the labelled pixels of each split that a class has; `counts` by split, in the order of the ids."""
    rows: list[list[Child]] = []
    for place, info in enumerate(legend.classes):
        cells: list[Child] = []
        for values in counts.values():
            part = values[place] / sum(values) if sum(values) else None
            cells.append(measured(part, percent))
        rows.append([named(info.name, info.color), *cells])
    foot: list[Child] = ["labelled pixels", *(f"{sum(values):,}" for values in counts.values())]
    return table("Share of each class among the labelled pixels", ["class", *counts], rows, foot)


def named(name: str, color: Sequence[int]) -> Html:
    """A class with its colour."""
    return tag("span", tag("i", style=f"background:{hex_color(color)}"), name, class_="class")


def measured(part: float | None, written: Callable[[float | None], str]) -> Html:
    """A part, 0 to 1, as a bar for eyes and as a number."""
    width = 0.0 if part is None else 100 * min(max(part, 0), 1)
    bar = tag("span", tag("span", style=f"width:{width:.1f}%"), class_="bar", aria_hidden="true")
    return joined([bar, tag("span", written(part), class_="amount")])


def decimal(value: float | None) -> str:
    """Three decimals, or a dash for what is undefined."""
    return "–" if value is None or isnan(value) else f"{value:.3f}"


def percent(part: float | None) -> str:
    """Percent that keep two figures of what is rare, or a dash for what is undefined.

    Examples
    --------
    >>> [percent(part) for part in (0.5, 0.012, 0.00031, 0.0, None)]
    ['50.0 %', '1.2 %', '0.031 %', '0.0 %', '–']
    """
    if part is None:
        return "–"
    return f"{100 * part:.1f} %" if part >= 0.01 or not part else f"{100 * part:.2g} %"
