"""Epochs: a step, its scores and the optimiser, run by Lightning without its files, bars and tips."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import lightning
import torch
from torch import Tensor

from ..core.metrics import Confusion, iou, mean_iou
from ..nn.augment import Augment
from ..nn.encoders import parameter_groups
from ..nn.losses import WeightedSum
from ..nn.segmenter import Segmenter
from .data import Batches
from .options import Fitting

Progress: TypeAlias = Callable[["Epoch"], None]


@dataclass(frozen=True)
class Epoch:
    """Scores after an epoch."""

    epoch: int
    """From 1."""
    epochs: int
    values: Mapping[str, float]
    """``loss``, ``val_loss``, ``val_miou``, ``learning_rate``, ``data_wait`` (part of the time of the training steps in
    which the next batch was waited for), and ``val_iou_NAME`` of each class."""
    best: bool
    """True if no earlier epoch had a better validation mIoU."""


class Task(lightning.LightningModule):
    """What Lightning needs to know: a step, an epoch's scores, an optimiser."""

    def __init__(
        self,
        segmenter: Segmenter,
        loss: WeightedSum,
        augment: Augment,
        fitting: Fitting,
        seed: int,
        *,
        encoder_lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws alike
        self.segmenter = segmenter.to(memory_format=torch.channels_last)
        self.loss, self.augment, self.fitting = loss, augment, fitting
        self.encoder_lr_factor = encoder_lr_factor
        self.average = (
            torch.optim.swa_utils.AveragedModel(
                segmenter,
                multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(fitting.ema),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if fitting.ema
            else None
        )
        self.legend = segmenter.legend
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self._best: tuple[float, dict[str, Tensor]] = (-math.inf, {})
        self._confusion = Confusion.empty(len(self.legend))
        self._losses: dict[str, list[tuple[float, int]]] = {"loss": [], "val_loss": []}
        self._began = self._wait = math.nan

    @property
    def current(self) -> Segmenter:
        """The weights that are validated and kept: the moving average, if there is one."""
        return cast("Segmenter", self.average.module) if self.average else self.segmenter

    def keep(self) -> Segmenter:
        """Load the weights to keep, and return the segmenter that has them."""
        if self.fitting.keep == "best" and self._best[1]:
            self.current.load_state_dict(self._best[1])
        return self.current

    def on_train_epoch_start(self) -> None:
        """Take the time."""
        self._began = time.perf_counter()

    def on_validation_start(self) -> None:
        """See what part of the epoch's steps was spent waiting for batches."""
        batches = self.trainer.train_dataloader
        assert isinstance(batches, Batches)
        self._wait = batches.waited / (time.perf_counter() - self._began)

    def training_step(self, batch: Mapping[str, Tensor], _: int) -> Tensor:
        """Loss of a batch, after augmentation."""
        image, mask = self.augment(batch["image"], batch["mask"], self.generator)
        heads = self.segmenter.supervised(image)
        loss: Tensor = torch.stack([self.loss(logits, mask) for logits in heads]).mean()
        self._note("loss", loss, mask)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Let the moving average follow a step."""
        if self.average:
            self.average.update_parameters(self.segmenter)

    def validation_step(self, batch: Mapping[str, Tensor], _: int) -> None:
        """Count a batch of validation pixels."""
        logits = self.current(batch["image"])
        self._note("val_loss", self.loss(logits, batch["mask"]), batch["mask"])
        predicted = logits.argmax(1).cpu().numpy()
        self._confusion += Confusion.of(batch["mask"].cpu().numpy(), predicted, len(self.legend))

    def on_validation_epoch_end(self) -> None:
        """Score the epoch, and keep its weights if they are the best so far."""
        miou = mean_iou(self._confusion.counts)
        miou = 0.0 if math.isnan(miou) else miou
        self.log("val_miou", miou)
        by_class = dict(zip(self.legend.names, iou(self._confusion.counts).tolist(), strict=True))
        scores = {
            "epoch": self.current_epoch + 1,
            **{name: _average(losses) for name, losses in self._losses.items()},
            "val_miou": miou,
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            "data_wait": self._wait,
            **{f"val_iou_{name}": value for name, value in by_class.items()},
        }
        self.history.append(scores)
        if miou > self._best[0]:
            self.best_epoch = self.current_epoch + 1
            self._best = miou, {name: value.clone() for name, value in self.current.state_dict().items()}
        self._confusion = Confusion.empty(len(self.legend))
        self._losses = {"loss": [], "val_loss": []}

    def _note(self, name: str, loss: Tensor, mask: Tensor) -> None:
        """Keep the loss of a batch, with its labelled pixels; a batch without any has none."""
        if labelled := int((mask != self.legend.ignore_index).sum()):
            self._losses[name].append((float(loss.detach()), labelled))

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms, warm-up and cosine by the step."""
        fitting = self.fitting
        groups = parameter_groups(
            self.segmenter, fitting.learning_rate, fitting.weight_decay, encoder_lr_factor=self.encoder_lr_factor
        )
        optimizer = torch.optim.AdamW(groups, lr=fitting.learning_rate, weight_decay=fitting.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        warm = max(1, round(self.fitting.warmup * steps))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, warm, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _average(losses: Sequence[tuple[float, int]]) -> float:
    """Mean loss of batches, each counting by its labelled pixels; NaN of none."""
    pixels = sum(count for _, count in losses)
    return sum(loss * count for loss, count in losses) / pixels if pixels else math.nan


def warmup_cosine(step: int, warm: int, steps: int) -> float:
    """Part of the full learning rate at a step: a straight climb over `warm` steps, then half a cosine to 0.

    Examples
    --------
    >>> [round(warmup_cosine(step, 2, 10), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))
