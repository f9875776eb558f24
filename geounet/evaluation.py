"""A model, or a map, against labels."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core.grid import common_grid
from .core.metrics import Confusion, mean_iou
from .errors import LegendError
from .inference import Prediction, predict
from .nn.segmenter import Segmenter, load
from .raster.labels import Labels
from .raster.sampler import Pair
from .record import write_json


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on labelled scenes."""

    names: tuple[str, ...]
    """Classes by id."""
    confusion: Confusion
    """Over the pixels of all scenes."""
    scenes: Mapping[str, Confusion]
    """By scene."""

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return mean_iou(self.confusion.counts)

    def report(self) -> dict[str, Any]:
        """Scores as plain values: SPEC's ``metrics.json``, plus the IoU of each class by scene."""
        whole = self.confusion.report(self.names)
        by_scene = {
            source: {name: scores["iou"] for name, scores in one.report(self.names)["classes"].items()}
            for source, one in self.scenes.items()
        }
        return whole | {"scenes": by_scene}

    def to_json(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write `report` to a file, atomically.

        Raises
        ------
        OutputExistsError, OutputError
            The file is there already, or its folder is not.
        """
        return write_json(path, self.report(), overwrite=overwrite)


def compare(prediction: Prediction, labels: Labels) -> Confusion:
    """Pixels of a prediction by true and predicted class, each counted once however the windows overlap.

    Parameters
    ----------
    prediction : Prediction
        Read strip by strip.
    labels : Labels
        On the prediction's grid, with the model's class codes.

    Raises
    ------
    LegendError
        The labels' codes, or their order, are not the model's.
    GridError
        The labels were opened for another grid.
    """
    if labels.legend.codes != prediction.legend.codes:
        raise LegendError(
            f"{labels.source} was opened with the class codes {labels.legend.codes}; the model's are "
            f"{prediction.legend.codes}. Open the labels with the model's legend."
        )
    common_grid([(prediction.scene.source, prediction.grid), (labels.source, labels.grid)])
    classes = len(prediction.legend)
    return sum(
        (Confusion.of(labels.read(strip.window), strip.ids, classes) for strip in prediction.strips()),
        start=Confusion.empty(classes),
    )


def evaluate(
    model: Segmenter | str | Path,
    pairs: Sequence[Pair],
    *,
    progress: Callable[[float], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Scores of a model on labelled scenes, by sliding window as in `predict`.

    Parameters
    ----------
    model : Segmenter, or what `load` takes
    pairs : sequence of Pair
        Scenes with labels on their grids, whose legend is the model's.
    progress : callable, optional
        Told the finished part, 0 to 1, after each scene.
    **options
        Those of `predict`.

    Raises
    ------
    BandMismatchError, ModelMismatchError, SceneError, LabelError
        As `predict`, and as reading the labels.
    """
    segmenter = model if isinstance(model, Segmenter) else load(model)
    scenes: dict[str, Confusion] = {}
    nothing = Confusion.empty(len(segmenter.legend))
    prediction: Prediction | None = None
    for done, pair in enumerate(pairs, start=1):
        prediction = prediction.over(pair.scene) if prediction else predict(pair.scene, segmenter, **options)
        one = compare(prediction, pair.truth)
        scenes[pair.scene.source] = scenes.get(pair.scene.source, nothing) + one
        if progress:
            progress(done / len(pairs))
    return Evaluation(segmenter.legend.names, sum(scenes.values(), start=nothing), scenes)
