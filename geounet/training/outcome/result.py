"""What a training leaves, and how it is read again."""

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.metrics import Confusion
from ...errors import OutputError, OutputExistsError
from ...evaluation import Evaluation
from ...nn.segmenter import Segmenter
from ..plan.finders import Search
from ..plan.planning import Plan
from ..sections import Sections
from .examples import Examples
from .folder import HISTORY, MODEL, RECORD
from .unfinished import differences

_log = logging.getLogger(__name__)

VALIDATION, TEST = "metrics.json", "metrics_test.json"


@dataclass(frozen=True)
class Run:
    """A finished training; what has a default is not there where a run was read from its folder."""

    folder: Path
    model: Segmenter = field(repr=False)
    history: Sequence[Mapping[str, float]]
    validation: Evaluation
    test: Evaluation | None
    examples: Examples | None = field(default=None, repr=False)
    """Chips to look at."""
    plan: Plan | None = field(default=None, repr=False)
    """What the options left open, and why it was settled as it was."""
    searches: tuple[Search, ...] = field(default=(), repr=False)
    """What was tried for the learning rate and the batch size."""


def finished(out: Path, sections: Sections) -> Run | None:
    """The run that is in a folder already, its scores over all scenes alone; None if there is none.

    Raises
    ------
    OutputExistsError
        It is one of other options.
    OutputError
        It cannot be read.
    """
    if not all((out / name).is_file() for name in (MODEL, RECORD)):
        return None
    try:
        told = json.loads((out / RECORD).read_text(encoding="utf-8"))["options"]
        run = _read(out)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise OutputError(
            f"the run in {out} cannot be read ({error}); choose another folder, or begin anew (-f)."
        ) from error
    if other := _differences(told, sections.learning()):
        raise OutputExistsError(
            f"{out} is a finished run of other options: {'; '.join(other)}. Choose another folder, or replace it (-f)."
        )
    _log.warning("%s is finished already; nothing is left to do.", out)
    return run


def _differences(then: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What differs of the options that both have, as a newer geounet may have more, and that are not left open now."""
    return [
        found
        for name, section in now.items()
        for key, value in section.items()
        if value != "auto" and key in then.get(name, {})
        for found in differences(then[name][key], value, f"{name}.{key}")
    ]


def _read(out: Path) -> Run:
    with (out / HISTORY).open(encoding="utf-8", newline="") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    model = Segmenter.load(out / MODEL)
    names = model.legend.names
    test = evaluation_in(out / TEST, names) if (out / TEST).exists() else None
    return Run(out, model, history, evaluation_in(out / VALIDATION, names), test)


def evaluation_in(path: Path, names: tuple[str, ...]) -> Evaluation:
    """Scores that a file holds, over all scenes alone."""
    report = json.loads(path.read_text(encoding="utf-8"))
    return Evaluation(names, Confusion(np.array(report["confusion"], np.int64), report["ignored"]), {})
