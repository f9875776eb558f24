"""``geounet doctor``."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shared import Talk, common, overwrite_option

if TYPE_CHECKING:
    from ..doctor import Diagnosis

ALIKE = 5
"""Findings of one code that are shown; all are in the JSON."""

WIDTH = 140
"""Columns of the table where there is no terminal to say."""


@click.command()
@click.argument("config", type=Path)
@click.option("--json", "report", type=Path, metavar="FILE", help="Also write all findings and facts as JSON.")
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override the config (repeatable)."
)
@overwrite_option
@common
def doctor(talk: Talk, config: Path, report: Path | None, overrides: tuple[str, ...], overwrite: bool) -> None:
    """Look for faults in the training data of CONFIG before time is spent on them.

    Files that cannot be read or lie unused, labels of another scene or beside their image, codes that nobody declared,
    bands that say nothing or hold the answer, nodata in the statistics, ground that two splits share. Ends with
    status 1 if something would spoil training or its scores.

    \b
    geounet doctor my.yaml
    geounet doctor my.yaml --json findings.json --set scenes.nodata=-9999
    """
    from ..config import load_config
    from ..doctor import examine
    from ..output import atomic, check_output

    if report is not None:
        check_output(report, overwrite=overwrite)
    with talk.progress("looking") as progress:
        found = examine(load_config(config, overrides), progress)
    if report is not None:
        with atomic(report, overwrite=overwrite) as part:
            part.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
    _tell(talk, found)
    if found.errors:
        sys.exit(1)


def _tell(talk: Talk, found: "Diagnosis") -> None:
    """Facts, then findings, the gravest first."""
    splits = found.facts["splits"]
    talk.table(
        "what there is",
        ["split", "scenes", "groups", "valid", "labelled pixels"],
        [
            [split, str(one["scenes"]), str(one["groups"]), _share(one["valid_share"]), f"{one['labelled']:,}"]
            for split, one in splits.items()
        ],
    )
    names = next((list(one["classes"]) for one in splits.values()), [])
    talk.table(
        "share of the labelled pixels",
        ["class", *splits],
        [[name, *(_share(one["classes"][name]["share"]) for one in splits.values())] for name in names],
    )
    talk.table(
        "best rule on one band alone, on training pixels",
        ["class", "rule", "IoU", "IoU of a guess"],
        [[n, r["rule"], f"{r['iou']:.3f}", f"{r['guess']:.3f}"] for n, r in found.facts["rules"].items()],
    )
    shown: Counter[str] = Counter()
    rows = []
    for finding in found.findings:
        shown[finding.code] += 1
        if shown[finding.code] <= ALIKE:
            rows.append([finding.level, finding.code, _short(finding.about), finding.message])
    rows += [["", code, "", f"… and {count - ALIKE} more"] for code, count in shown.items() if count > ALIKE]
    if rows and not talk.quiet:
        _show(rows)
    levels = Counter(finding.level for finding in found.findings)
    talk.say(
        ", ".join(f"{levels[level]} {level}{'s' * (levels[level] != 1)}" for level in ("error", "warning", "note"))
    )


def _show(rows: Sequence[Sequence[str]]) -> None:
    """Findings in columns of text, the last as wide as there is room."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(pad_edge=False, show_lines=True)
    for column in ("level", "code", "about", "what was found, and what to do"):
        table.add_column(escape(column), overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _short(about: str) -> str:
    """Name of a file without its folders."""
    return Path(about).name or about
