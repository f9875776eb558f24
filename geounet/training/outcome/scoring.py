"""What follows the last epoch: the weights to keep are scored, described and written down."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...evaluation import Evaluation
from ...nn.segmenter import ModelInfo, Segmenter
from ...raster.sampler import Survey
from ...record import record, versions, write_json
from ..epochs.task import Task
from ..plan.settling import Settled
from ..sections import Sections
from ..seeding import seeded
from ..source.batches import Batches
from ..source.data import Source
from .examples import Examples, gather
from .folder import MODEL, RECORD
from .result import TEST, VALIDATION, Run


@dataclass(frozen=True)
class Learnt:
    """A network after its last epoch, and what it was trained on."""

    task: Task
    source: Source
    origin: Mapping[str, Any]
    """What the data are; see `Source.origin`."""
    seen: Survey
    batches: Batches
    chips: Batches
    sections: Sections
    """Options, numbers throughout."""
    settled: Settled
    device: torch.device

    def write(self, folder: Path, out: Path) -> Run:
        """Score the weights to keep, and fill a new folder with the run that is to become `out`."""
        kept = self.task.keep()
        self._model(kept, {}).save(folder / MODEL)  # now: scoring may fail
        mapping = asdict(self.sections.inference) | {
            "force": True
        }  # doubts are about strangers, not the run's own scenes
        scores: dict[str, Evaluation] = {
            split: self.source.evaluate(kept, split, mapping)
            for split in ("validate", "test")
            if split in self.source.splits
        }
        model = self._model(kept, scores)
        model.save(folder / MODEL, overwrite=True)
        run = Run(
            out, model, self.task.history, scores["validate"], scores.get("test"), self._examples(model),
            self.settled.plan, self.settled.searches,
        )  # fmt: skip
        run.validation.to_json(folder / VALIDATION)
        if run.test:
            run.test.to_json(folder / TEST)
        write_json(folder / RECORD, self._record(model))
        return run

    def _model(self, kept: Segmenter, scores: Mapping[str, Evaluation]) -> Segmenter:
        """The network with what is known of it by now."""
        return Segmenter(kept.network, kept.bands, self._info(scores), kept.features).eval()

    def _examples(self, model: Segmenter) -> Examples:
        seed = self.sections.sampler.seed
        with seeded(seed, self.device):  # torchgeo's batches draw from torch's own chance
            return gather(
                self.source, model, self.batches, self.chips, self.task.augment, seed=seed, device=self.device
            )

    def _info(self, scores: Mapping[str, Evaluation]) -> ModelInfo:
        card, legend = self.sections.card, self.source.legend
        provenance = {
            "data": card.data,
            **self.origin,
            "pixels": dict(zip(legend.names, self.seen.counts.counts.tolist(), strict=True)),
            "seed": self.sections.sampler.seed,
            "normalisation": self.sections.model.rule,
            "epochs": len(self.task.history),
            "best_epoch": self.task.best_epoch,
            "versions": versions(),
            "metrics": {split: headline(one) for split, one in scores.items()},
            "licence": card.licence,
            "citation": card.citation,
        }
        return ModelInfo(
            legend=legend, name=card.name, description=card.description, pixel_size=self.source.pixel_size,
            provenance=provenance, notes=card.notes,
        )  # fmt: skip

    def _record(self, model: Segmenter) -> dict[str, Any]:
        return record(
            what="geounet train", versions=versions(), model={"name": self.sections.card.name, "hash": model.hash},
            options=self.sections.to_dict(), plan=self.settled.plan.to_dict(),
            searches=[asdict(search) for search in self.settled.searches], provenance=model.info.provenance,
        )  # fmt: skip


def headline(scores: Evaluation) -> dict[str, Any]:
    """The scores that a model file has of a split."""
    report = scores.report()
    accuracy = report["micro"]["accuracy"]
    return {
        "iou": {
            name: round(values["iou"], 4) for name, values in report["classes"].items() if values["iou"] is not None
        },
        "accuracy": None if accuracy is None else round(accuracy, 4),
        "pixels": report["pixels"],
    }
