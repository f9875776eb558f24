"""Parts of a page about a run."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.metrics import mean_iou
from .finders import CURVES
from .markup import Child, Html, tag
from .names import short_names, without_query
from .pictures import figure
from .tables import decimal, facts, percent, scores, shares, table

if TYPE_CHECKING:
    from ..evaluation import Evaluation
    from ..training import Run

SCENES = 30
"""Scenes with the lowest scores that are listed."""
Record = Mapping[str, Any]


def summary(run: "Run", record: Record) -> Html:
    """Name, purpose and the figures that are asked for first."""
    info = run.model.info
    shown = {
        "mean IoU, validation": decimal(run.validation.miou),
        "mean IoU, test": decimal(run.test.miou) if run.test else None,
        "accuracy, validation": decimal(_accuracy(run.validation)),
        "classes": len(run.model.legend),
        "bands": len(run.model.bands),
        "parameters": f"{parameters(run):,}",
    }
    figures = [tag("li", tag("strong", value), name) for name, value in shown.items() if value is not None]
    ended = str(record.get("ended", ""))[:16].replace("T", " ")
    written = f"Trained by geounet {record.get('versions', {}).get('geounet', '')}, ended {ended} UTC."
    return tag(
        "header",
        tag("h1", info.name or "model"),
        tag("p", info.description) if info.description else None,
        tag("p", written, class_="muted") if record else None,
        tag("ul", figures, class_="figures"),
        tag("p", tag("strong", "To know: "), info.notes) if info.notes else None,
    )


def results(run: "Run", folder: Path) -> Html:
    """Scores and confusions of validation and test."""
    legend = run.model.legend
    tested: list[Child] = []
    if run.test:
        tested = [
            tag("h3", "Test: scored once, at the end; it decided nothing"),
            scores("Test", run.test.report(), legend),
            figure(folder / "confusion_test.png", "Test: " + _confused(run.test), _CONFUSION),
            _by_scene(run.test),
        ]
    return tag(
        "section",
        tag("h2", "Scores"),
        tag("h3", "Validation: watched during training"),
        scores("Validation", run.validation.report(), legend),
        figure(folder / "confusion.png", "Validation: " + _confused(run.validation), _CONFUSION),
        _by_scene(run.validation),
        tested,
    )


_CONFUSION = (
    "Rows are true classes, columns what they were mapped as; left pixels, right the share of each true class, in "
    "percent. The diagonal is right."
)


def _confused(evaluation: "Evaluation") -> str:
    """The most frequent confusion, in words."""
    counts = evaluation.confusion.counts.copy()
    np.fill_diagonal(counts, 0)
    if not counts.any():
        return "confusion matrix; no pixel is mapped as another class than its own."
    true, mapped = (int(place) for place in np.unravel_index(int(counts.argmax()), counts.shape))
    names, share = evaluation.names, counts[true, mapped] / evaluation.confusion.counts[true].sum()
    return f"confusion matrix; most of all, {share:.0%} of {names[true]} is mapped as {names[mapped]}."


def _by_scene(evaluation: "Evaluation") -> Html | None:
    """Mean IoU of the scenes, lowest first, behind a click."""
    if len(evaluation.scenes) < 2:
        return None
    rated = [(mean_iou(one.counts), name, int(one.counts.sum())) for name, one in evaluation.scenes.items()]
    rated = sorted((one for one in rated if one[2]), key=lambda one: one[0])
    names = short_names(evaluation.scenes)
    rows = [[names[name], decimal(score), f"{pixels:,}"] for score, name, pixels in rated[:SCENES]]
    said = f"{len(rows)} of {len(rated)} scenes with labels, lowest first; mean over the classes that occur in a scene"
    return tag("details", tag("summary", "Scene by scene"), table(said, ["scene", "mean IoU", "pixels"], rows))


def errors(run: "Run", folder: Path) -> Html | None:
    """Where the model is wrong, and what chance picks."""
    read = (
        "Image, labels, prediction, and in vermilion the labelled pixels that got another class; hatched: no data, or no "
        "label. Bands shown: "
        + ", ".join(run.examples.bands if run.examples else ())
        + "; each chip stretched by itself, its bands together."
    )
    worst = figure(
        folder / "worst.png", "Validation chips with the most wrong pixels: image, labels, prediction and errors.",
        "The validation chips with the most wrong pixels, worst first. Errors of the labels and of the model look alike in "
        "the scores; here they can be told apart. " + read,
    )  # fmt: skip
    sample = figure(
        folder / "sample.png", "Validation chips drawn by chance: image, labels, prediction and errors.",
        "Validation chips drawn by chance among those with labels: how it usually looks. " + read,
    )  # fmt: skip
    if worst is None and sample is None:
        return None
    return tag("section", tag("h2", "Where it errs"), worst, sample)


def data(run: "Run", folder: Path) -> Html:
    """What was learnt from."""
    provenance = run.model.info.provenance
    counts = {"training": [int(provenance.get("pixels", {}).get(name, 0)) for name in run.model.legend.names]}
    for split, one in (("validation", run.validation), ("test", run.test)):
        if one:
            counts[split] = one.confusion.counts.sum(axis=1).tolist()
    splits: Mapping[str, Mapping[str, Any]] = provenance.get("split", {})
    columns = list(dict.fromkeys(key for one in splits.values() for key in one))
    rows = [[split, *(_cell(key, one.get(key)) for key in columns)] for split, one in splits.items()]
    return tag(
        "section",
        tag("h2", "Data"),
        tag("p", provenance["data"]) if provenance.get("data") else None,
        facts({"licence": provenance.get("licence"), "citation": provenance.get("citation")}),
        table("Splits; the hash is of the content of all files", ["split", *columns], rows) if rows else None,
        facts({"hash of all data": provenance.get("data_hash")}),
        shares(counts, run.model.legend),
        figure(
            folder / "inputs.png", "Training chips after augmentation, each beside its labels.",
            "What the network was shown: the first training chips, after augmentation, and their labels. All are stretched "
            "alike, from the 1st to the 99th percentile of the training pixels.",
        ),
    )  # fmt: skip


def _cell(key: str, value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)[:12] if key == "hash" else str(value)


def course(run: "Run", record: Record, folder: Path) -> Html:
    """How the training went."""
    history = run.history
    best = run.model.info.provenance.get("best_epoch")
    keep = record.get("options", {}).get("training", {}).get("keep")
    waits = [row["data_wait"] for row in history if "data_wait" in row]
    first, last = history[0], history[-1]
    alt = (
        f"Curves over {len(history)} epochs: loss of training from {first['loss']:.3g} to {last['loss']:.3g}, of "
        f"validation from {first['val_loss']:.3g} to {last['val_loss']:.3g}; mean IoU of validation from "
        f"{first['val_miou']:.3f} to {last['val_miou']:.3f}."
    )
    return tag(
        "section",
        tag("h2", "Training"),
        figure(
            folder / "curves.png", alt, "By epoch; the star is the best mean IoU of validation, taken chip by chip."
        ),
        facts({
            "epochs": len(history),
            "best epoch": best,
            "weights kept": {"best": "of the best epoch", "last": "of the last epoch"}.get(keep),
            "waited for data": f"{percent(float(np.mean(waits)))} of the training steps' time" if waits else None,
        }),
    )  # fmt: skip


def choices(record: Record, folder: Path) -> Html | None:
    """What was chosen for the user, and the curves that it rests on, if there are any."""
    plan = record.get("plan") or {}
    chosen: Mapping[str, Mapping[str, Any]] = plan.get("choices", {})
    rows = [[what, str(one.get("value")), one.get("why")] for what, one in chosen.items()]
    curves = [folder / name for name in CURVES.values()]
    finders = [
        figure(path, f"Curve of the search for the {path.stem.replace('_', ' ')}.", "The star is the value taken.")
        for path in curves
        if path.is_file()
    ]
    if not rows and not finders:
        return None
    listed = table("Values, and where they come from", ["option", "value", "why"], rows, kind="words") if rows else None
    return tag("section", tag("h2", "What was chosen"), listed, finders)


def model(run: "Run", record: Record) -> Html:
    """The network and the bands it reads."""
    network, info = run.model.network, run.model.info
    field, size = getattr(network, "receptive_field", None), info.pixel_size
    seen = None if field is None else f"{field} pixels" + (f", {field * size:,.0f} m" if size else "")
    rows = [
        [
            band.name,
            *(["", ""] if band.type.typed else [f"{band.mean:.5g}", f"{band.std:.5g}"]),
            band.unit,
            f"{band.wavelength:g} µm" if band.wavelength else "",
            str(band.type),
        ]
        for band in run.model.bands
    ]
    versions = record.get("versions", {})
    return tag(
        "section",
        tag("h2", "Model"),
        facts({
            "network": type(network).__name__,
            "parameters": f"{parameters(run):,}",
            "receptive field": seen,
            "pixel size": f"{size:.4g} m" if size else None,
            "normalisation": info.provenance.get("normalisation"),
            "differences of bands": "shown as well" if run.model.features.differences else None,
            "seed": info.provenance.get("seed"),
            "hash": run.model.hash[:12],
            "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        }),
        table("Bands, with what is subtracted from their values, and what they are divided by then",
              ["band", "minus", "divided by", "unit", "wavelength", "kind"], rows),
    )  # fmt: skip


def use(run: "Run") -> Html:
    """How to map a scene with it."""
    from ..training import MODEL

    path = f"{run.folder.as_posix()}/{MODEL}"
    bands = ", ".join(run.model.band_names)
    python = (
        "import geounet\n\n"
        f'geounet.predict(geounet.open_scene("scene.tif"), geounet.load({path!r})).to_geotiff("mask.tif")'
    )
    return tag(
        "section",
        tag("h2", "Use it"),
        tag(
            "p", f"On scenes with the bands {bands}, in the unit given above, at about the pixel size of the training:"
        ),
        tag("pre", f"geounet predict scene.tif --model {shlex.quote(path)}"),
        tag("p", "Or in Python:"),
        tag("pre", python),
    )


def config(folder: Path, record: Record) -> Html | None:
    """The config as it was used, or the options where there was no config."""
    path = folder / "config.yaml"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif record.get("options"):
        text = json.dumps(record["options"], indent=2, ensure_ascii=False)
    else:
        return None
    return tag("section", tag("h2", "Config as used"), tag("pre", without_query(text)))


def parameters(run: "Run") -> int:
    """Numbers that were learnt."""
    return sum(one.numel() for one in run.model.parameters())


def _accuracy(evaluation: "Evaluation") -> float | None:
    accuracy: float | None = evaluation.confusion.report(evaluation.names)["micro"]["accuracy"]
    return accuracy
