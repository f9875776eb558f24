"""Epochs: a step, its scores and the optimiser, run by Lightning without its files, bars and tips."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import lightning
import numpy as np
import torch
from torch import Tensor

from ...core.metrics import Confusion, iou, mean_iou
from ...errors import DivergenceError
from ...nn.augment import Augment
from ...nn.encoders import parameter_groups
from ...nn.losses import WeightedSum
from ...nn.segmenter import Segmenter
from ..options import Fitting
from ..source.batches import Batches
from ..together.team import ALONE, Team
from .schedules import schedulers

Progress: TypeAlias = Callable[["Epoch"], None]
PIXELS = 2.0**20
"""Unit of the weight of a batch among those of a step; any would do, this keeps losses of usual batches as they are."""


@dataclass(frozen=True)
class Epoch:
    """Scores after an epoch."""

    epoch: int
    """From 1."""
    epochs: int
    values: Mapping[str, float]
    """``loss``, ``val_loss``, ``val_miou``, ``learning_rate`` (of layers that are new), ``data_wait`` (part of the time of the training steps in
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
        # a function, not a module around the network: names of weights stay what they are
        self.supervised: Callable[[Tensor], list[Tensor]] = segmenter.supervised
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
        if self.average:
            # follows, and is not learnt; several devices would wait for its gradient
            self.average.requires_grad_(False)
        self.team = ALONE
        self.legend = segmenter.legend
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self._best: tuple[float, dict[str, Tensor]] = (-math.inf, {})
        self._confusion = Confusion.empty(len(self.legend))
        self._losses: dict[str, list[tuple[Tensor, Tensor]]] = {"loss": [], "val_loss": []}
        self._gathered = torch.zeros(())
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the weights do not tell: scores, the best weights so far, the state of augmentation."""
        checkpoint["task"] = {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best": self._best,
            "augmentation": self.team.gather(self.generator.get_state()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take that up again."""
        kept = checkpoint["task"]
        self.history, self.best_epoch, self._best = kept["history"], kept["best_epoch"], kept["best"]
        self.generator.set_state(self.team.own(kept["augmentation"]))

    def on_fit_start(self) -> None:
        """Compile, if that is wished for: where the network is used, as what is compiled goes to no other process."""
        if self.fitting.compile:
            self.supervised = torch.compile(self.segmenter.supervised)

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
        heads = self.supervised(image)
        loss: Tensor = torch.stack([self.loss(logits, mask) for logits in heads]).mean()
        labelled = self._note("loss", loss, mask)
        return self._gather(loss, labelled) if self._gathers else loss

    @property
    def _gathers(self) -> bool:
        """True if a step is made from the losses of several batches, one after the other or side by side."""
        return self.fitting.accumulate > 1 or self.team.size > 1

    def _gather(self, loss: Tensor, labelled: Tensor) -> Tensor:
        """Loss of a batch of several that make up a step, by its labelled pixels."""
        weight = labelled / PIXELS
        self._gathered = self._gathered.to(weight) + weight / self.fitting.accumulate  # Lightning divides the loss, too
        return loss * weight

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the sum of gradients that was gathered a mean over pixels, however many batches it is of."""
        if not self._gathers:
            return
        weight = self.trainer.strategy.reduce(self._gathered, reduce_op="mean")  # as the gradients of several devices
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_div_(gradients, torch.where(weight > 0, weight, 1))
        self._gathered = torch.zeros_like(self._gathered)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Make a step, and let the moving average follow it."""
        super().optimizer_step(*args, **options)
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
        counts = self.team.total(self._confusion.counts)
        miou = mean_iou(counts)
        miou = 0.0 if math.isnan(miou) else miou
        self.log("val_miou", miou)
        by_class = dict(zip(self.legend.names, iou(counts).tolist(), strict=True))
        scores = {
            "epoch": self.current_epoch + 1,
            **{name: _average(losses, self.team) for name, losses in self._losses.items()},
            "val_miou": miou,
            "learning_rate": max(group["lr"] for group in self.trainer.optimizers[0].param_groups),
            "data_wait": self._wait,
            **{f"val_iou_{name}": value for name, value in by_class.items()},
        }
        self._check_finite()
        self.history.append(scores)
        if miou > self._best[0]:
            self.best_epoch = self.current_epoch + 1
            self._best = miou, {name: value.clone() for name, value in self.current.state_dict().items()}
        self._confusion = Confusion.empty(len(self.legend))
        self._losses = {"loss": [], "val_loss": []}

    def _check_finite(self) -> None:
        """Refuse to go on with weights that are no numbers: they map all as one class, which may even score well.

        Raises
        ------
        DivergenceError
        """
        if not all(bool(value.isfinite().all()) for value in self.segmenter.state_dict().values()):
            raise DivergenceError(
                f"the training diverged in epoch {self.current_epoch + 1}: weights are no numbers any more. Begin anew with a "
                f"training.learning_rate below {self.fitting.rate:g}, or a training.clip above 0 if there is none; if that does "
                "not help, look at the bands' values with geounet doctor."
            )

    def _note(self, name: str, loss: Tensor, mask: Tensor) -> Tensor:
        """Keep the loss of a batch where it is, as asking a GPU for it would wait for all it has to do; labelled pixels."""
        labelled = (mask != self.legend.ignore_index).sum()
        self._losses[name].append((loss.detach(), labelled))
        return labelled

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms, and the schedule of its learning rate."""
        fitting = self.fitting
        groups = parameter_groups(
            self.segmenter, fitting.rate, fitting.weight_decay, encoder_lr_factor=self.encoder_lr_factor
        )
        optimizer = torch.optim.AdamW(groups, lr=fitting.rate, weight_decay=fitting.weight_decay)
        return [optimizer], schedulers(optimizer, fitting, int(self.trainer.estimated_stepping_batches))


def _average(losses: Sequence[tuple[Tensor, Tensor]], team: Team) -> float:
    """Mean loss of batches of all processes, each counting by its labelled pixels; NaN of none."""
    columns = [torch.stack(column).tolist() for column in zip(*losses, strict=True)] or [[], []]
    known = [(value, count) for value, count in zip(*columns, strict=True) if count]
    total = sum(value * count for value, count in known)
    total, pixels = team.total(np.array([total, sum(count for _, count in known)], np.float64)).tolist()
    return total / pixels if pixels else math.nan
