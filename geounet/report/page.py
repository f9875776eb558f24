"""A run on one page that can be mailed: all pictures inside, and nothing fetched from elsewhere."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..output import atomic
from . import sections
from .markup import Html, tag
from .style import STYLE

if TYPE_CHECKING:
    from ..training import Run

PAGE = "report.html"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser is told that the page may load: its own pictures and style, and no script whatever."""


def write_page(folder: Path, run: "Run", *, overwrite: bool = False) -> Path:
    """Write ``report.html``: what was trained on what, how well, where it errs, and how to use it.

    Parameters
    ----------
    folder : path
        Of the run, which may have another name as long as it is filled; its pictures, its record and its config, as
        far as they are there, are taken in.
    run : Run

    Raises
    ------
    OutputExistsError, OutputError
        The page is there already and `overwrite` is not set, or the folder is not.
    """
    from ..training import RECORD

    record = json.loads((folder / RECORD).read_text(encoding="utf-8")) if (folder / RECORD).is_file() else {}
    body = tag(
        "main",
        sections.summary(run, record),
        sections.results(run, folder),
        sections.errors(run, folder),
        sections.data(run, folder),
        sections.course(run, record, folder),
        sections.choices(record, folder),
        sections.model(run, record),
        sections.use(run),
        sections.config(folder, record),
    )
    page = tag("html", _head(f"{run.model.info.name or 'model'} – geounet"), tag("body", body), lang="en")
    with atomic(folder / PAGE, overwrite=overwrite) as part:
        part.write_text(f"<!doctype html>\n{page}\n", encoding="utf-8")
    return folder / PAGE


def _head(title: str) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
