"""What all commands share: options, refusals, progress."""

import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ..errors import GeoUNetError

WIDE = 120
"""Columns of a table that goes to a file."""


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add -q and -v, and turn a refusal into one message and exit status 1."""

    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but refusals.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more; show where a refusal came from.")
    @functools.wraps(function)
    def wrapped(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        try:
            return function(*args, talk=Talk(quiet=quiet, verbose=verbose), **kwargs)
        except GeoUNetError as error:
            if verbose:
                raise
            click.echo(f"geounet: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("geounet: stopped; nothing was left half-written.", err=True)
            sys.exit(130)

    return wrapped


class Talk:
    """How much to say: results on stdout, notes and progress on stderr."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose

    def say(self, text: str) -> None:
        """A result."""
        if not self.quiet:
            click.echo(text)

    def note(self, text: str) -> None:
        """What a person should know."""
        if not self.quiet:
            click.echo(f"note: {text}", err=True)

    def notes(self, texts: Sequence[str]) -> None:
        """Several of them, each once."""
        for text in dict.fromkeys(texts):
            self.note(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> None:
        """Rows under column names, the first column to the left and the rest to the right; of `words`, all to the left."""
        if self.quiet:
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for place, column in enumerate(columns):
            table.add_column(escape(column), justify="right" if place and not words else "left")
        for row in rows:
            table.add_row(*map(escape, row))
        self.say(title)
        console = Console()
        if not console.is_terminal:
            console.width = WIDE
        console.print(table)

    def scores(self, title: str, classes: Mapping[str, Mapping[str, Any]]) -> None:
        """Scores of each class, as `Confusion.report` has them."""
        keys = ("iou", "f1", "precision", "recall")
        self.table(
            title,
            ["class", "IoU", "F1", "precision", "recall", "pixels"],
            [[name, *(percent(row[key]) for key in keys), f"{row['support']:,}"] for name, row in classes.items()],
        )

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[float], None]]:
        """Report a part done, 0 to 1: a bar with rate and time left on a terminal, else a line each tenth."""
        if self.quiet:
            yield lambda _: None
        elif sys.stderr.isatty():
            yield from _bar(what)
        else:
            yield _lines(what)


def _bar(what: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda part: bar.update(task, completed=part)


def _lines(what: str) -> Callable[[float], None]:
    began, tenths = time.monotonic(), 0

    def tell(part: float) -> None:
        nonlocal tenths
        if int(part * 10) > tenths:
            tenths = int(part * 10)
            click.echo(f"{what}: {tenths * 10} % after {time.monotonic() - began:.1f} s", err=True)

    return tell


def parse_bands(value: Any) -> Any:
    """Mapping of name to file index from ``blue=2,green=3``, or list of names from ``blue,green``."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if any("=" in part for part in parts):
        try:
            pairs = [(name.strip(), int(index)) for name, index in (part.split("=") for part in parts)]
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither name=index,… nor a list of names.") from None
        _refuse_twice(value, [name for name, _ in pairs])
        return dict(pairs)
    if any(part.isdecimal() for part in parts):
        raise click.BadParameter(
            f"{value!r} says which bands, but not what they are; write name=index: blue=2,green=3,…"
        )
    _refuse_twice(value, parts)
    return parts


def _refuse_twice(value: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise click.BadParameter(f"{value!r} gives {', '.join(twice)} more than once; each band has a name of its own.")


def parse_nodata(value: Any) -> Any:
    """A number, or mapping of band to number from ``nir=0,dem=-9999``."""
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in value.split(",")]
    try:
        if len(parts) == 1 and not parts[0][1]:
            return float(value)
        if not all(sign for _, sign, _ in parts):
            raise ValueError
        pairs = [(name.strip(), float(number)) for name, _, number in parts]
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor band=number,….") from None
    _refuse_twice(value, [name for name, _ in pairs])
    return dict(pairs)


def parse_resolution(value: Any) -> Any:
    """A pixel size, or the words ``finest`` and ``coarsest``."""
    if not isinstance(value, str) or value in ("finest", "coarsest"):
        return value
    try:
        size = float(value)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise click.BadParameter(f"{value!r} is no pixel size above 0, nor finest or coarsest.")
    return size


def parse_bounds(value: Any) -> Any:
    """Four floats from ``west,south,east,north``."""
    if not isinstance(value, str):
        return value
    try:
        west, south, east, north = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not west,south,east,north.") from None
    return west, south, east, north


def parse_option(value: Any) -> Any:
    """Pair from ``NAME=VALUE``."""
    if not isinstance(value, str):
        return value
    name, sign, text = value.partition("=")
    if not (sign and name):
        raise click.BadParameter(f"{value!r} is not NAME=VALUE.")
    return name.upper(), text


def scene_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what a scene's bands and nodata are."""
    bands = click.option(
        "--bands",
        type=parse_bands,
        metavar="BANDS",
        help="Which band is which: blue=2,green=3,… or names in file order.",
    )
    nodata = click.option(
        "--nodata", type=parse_nodata, metavar="VALUE",
        help="Value that is no data, over what the files declare; nan for none. Band by band: nir=0,dem=-9999",
    )  # fmt: skip
    resolution = click.option(
        "--resolution", type=parse_resolution, metavar="SIZE",
        help="Pixel size, in units of the CRS, for bands of several: a number, finest or coarsest.  [default: finest]",
    )  # fmt: skip
    return bands(nodata(resolution(function)))


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of `geounet.predict`."""
    options = [
        click.option("--chip-size", type=click.IntRange(min=1), default=512, show_default=True, help="Pixels."),
        click.option(
            "--overlap", type=click.IntRange(min=0),
            help="Pixels that neighbouring chips share.  [default: 128, or a quarter of a smaller chip]",
        ),
        click.option("--batch-size", type=click.IntRange(min=1), help="Chips at once.  [default: 1, or 8 on a GPU]"),
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N|mps"),
        click.option("--backend", type=click.Choice(["auto", "torch", "openvino"]), default="auto", show_default=True),
        click.option(
            "--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True
        ),
        click.option("--workers", type=click.IntRange(min=1), help="Threads that read.  [default: 2]"),
        click.option(
            "--tta", type=click.Choice(["none", "flips", "d4"]), default="none", show_default=True,
            help="Average over views of each chip: 4 flips, or 8 flips and turns, in 4 or 8 times the computing.",
        ),
        click.option("--force", is_flag=True, help="Go on although pixel size or values do not fit the model."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


overwrite_option = click.option("-f", "--overwrite", is_flag=True, help="Replace files that are there.")


def open_argument(paths: Sequence[str], bands: Any, nodata: Any, resolution: Any) -> Any:
    """Scene that a command's arguments name: one path, one file a band, or tiles side by side."""
    from ..raster.scene import open_scene

    return open_scene(paths[0] if len(paths) == 1 else list(paths), bands=bands, nodata=nodata, resolution=resolution)


def percent(value: float | None) -> str:
    """A share for a table."""
    return "–" if value is None else f"{value:.3f}"


def hectares(square_metres: float) -> str:
    """An area for a table."""
    return f"{square_metres / 1e4:,.1f}"
