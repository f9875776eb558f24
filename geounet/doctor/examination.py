"""All looks at the training data of a config, one after the other."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..config import LoadedConfig
from ..errors import ConfigError
from . import answers, exchange, files, labels, pairing, registration, splits, values
from .cases import Cases, counted, open_rows, refused
from .findings import Diagnosis
from .registration import Fit
from .samples import draw

Tell = Callable[[float], None]


def examine(loaded: LoadedConfig, progress: Tell | None = None) -> Diagnosis:
    """Faults of the training data that a config names, found before time is spent on them.

    Every scene and its labels are read once, and some chips of each a second time. One bad scene does not stop the rest:
    what cannot be read is a finding, and left out of the later looks.

    Parameters
    ----------
    loaded : LoadedConfig
        A config with scenes and labels.
    progress : callable, optional
        Called with the part done, 0 to 1.

    Returns
    -------
    Diagnosis
        Equal data give equal findings.

    Raises
    ------
    ConfigError
        The config takes its images from torchgeo; a path matches nothing; labels are not said; or the bands of one
        scene are given as many scenes.
    """
    if loaded.config.torchgeo is not None:
        raise ConfigError(
            f"{loaded.path} takes its images from torchgeo, and a data set of torchgeo's has no files to examine: name scenes "
            "and labels."
        )
    tell = progress or (lambda _: None)
    opened = open_rows(loaded)
    for split in loaded.rows():
        pairs = [one.pair for one in opened if one.split == split and one.pair is not None]
        loaded.refuse_loose_bands(split, [pair.scene for pair in pairs])
    assert loaded.config.labels is not None
    misnamed = [*pairing.named_after_another(opened)]
    found = [
        *refused(opened),
        *files.beside(loaded, [finding.values["expected"] for finding in misnamed]),
        *pairing.placed(opened, loaded.config.labels.layer),
        *misnamed,
        *labels.undeclared(loaded, opened),
    ]
    cases, unread = counted(loaded, opened, partial(_part, tell, 0.1, 0.6))
    samples = draw(cases, partial(_part, tell, 0.6, 0.9))
    fits = [samples.drawn[case.row].fit if case.row in samples.drawn else Fit.nothing() for case in cases.scenes]
    rules = answers.rules(cases, samples)
    found += [
        *unread,
        *labels.balance(cases, loaded.config.sampler.side),
        *values.constant(cases, samples),
        *values.undeclared_nodata(cases, samples),
        *values.other_scale(cases),
        *answers.told(rules),
        *registration.misregistered(cases, fits),
        *exchange.exchanged(cases, fits),
        *splits.leaks(loaded, cases),
        *splits.straddling(cases),
    ]
    tell(1.0)
    return Diagnosis.of(
        found,
        {
            "splits": {split: _facts(cases, split) for split in cases.splits},
            "rules": answers.facts(rules),
            "registration": sum(fits, Fit.nothing()).to_dict(),
        },
    )


def _part(tell: Tell, begin: float, end: float, part: float) -> None:
    tell(begin + (end - begin) * part)


def _facts(cases: Cases, split: str) -> dict[str, Any]:
    """Figures of a split."""
    there = cases.of(split)
    counts = cases.counts(split)
    total = int(counts.sum())
    pixels = sum(case.survey.stats.pixels for case in there)
    names = there[0].pair.truth.legend.names
    return {
        "scenes": len(there),
        "groups": len({case.pair.group or case.row for case in there}),
        "pixels": pixels,
        "valid_share": sum(case.survey.stats.count for case in there) / pixels if pixels else None,
        "labelled": total,
        "classes": {
            name: {"pixels": count, "share": count / total if total else None}
            for name, count in zip(names, counts.tolist(), strict=True)
        },
    }
