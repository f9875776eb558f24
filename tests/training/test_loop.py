"""A step is what its options say it is, and what an epoch brought is written down at once."""

import csv
import functools
import math
import sys
from unittest.mock import Mock

import pytest
import torch
from numpy.testing import assert_allclose
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.testing import assert_close

from geounet.core.legend import Legend
from geounet.errors import ConfigError, DeviceError, DivergenceError
from geounet.nn.augment import Compose
from geounet.nn.losses import DiceCrossEntropy, WeightedSum
from geounet.nn.segmenter import ModelInfo, Segmenter
from geounet.nn.unet import UNet
from geounet.training import Batches, Fitting, Source, Task, train
from geounet.training.epochs.logs import LOGS
from geounet.training.epochs.loop import fit
from geounet.training.epochs.schedules import rate
from tests.making import BANDS, band_infos, unet_model

CPU = torch.device("cpu")
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
SIZES = [2, 2, 2, 2, 1]
"""Chips of the batches of an epoch."""


class Watched(Task):
    """A task that tells what its steps were made of."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.gradients, self.norms, self.rates, self.weights, self.types = [], [], [], [], set()

    def training_step(self, batch, number):
        loss = super().training_step(batch, number)
        self.types.add((torch.get_autocast_dtype(self.device.type), loss.dtype))
        return loss

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.gradients.append([p.grad.clone() for p in self.segmenter.parameters()])
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_gradient_clipping(self, *args, **options):
        super().configure_gradient_clipping(*args, **options)
        self.norms.append(norm(p.grad for p in self.segmenter.parameters()))

    def optimizer_step(self, *args, **options):
        super().optimizer_step(*args, **options)
        self.weights.append([p.detach().clone() for p in self.segmenter.parameters()])


def norm(tensors):
    return float(torch.cat([t.flatten() for t in tensors]).norm())


def batches(*sizes, side=16, seed=0):
    """Batches of so many chips, the same each pass; the chips do not depend on how they are batched.

    Ever fewer pixels have a label, and those of the third chip none.
    """
    draw = torch.Generator().manual_seed(seed)
    image = torch.randn(sum(sizes), len(BANDS), side, side, generator=draw) * 500 + 1000
    mask = (image[:, 3] < 1000).long()
    for chip in range(len(mask)):
        mask[chip, : side * chip // len(mask)] = 255
    mask[2] = 255
    parts = [{"image": i, "mask": m} for i, m in zip(image.split(sizes), mask.split(sizes), strict=True)]
    return Batches(lambda _: iter(parts), len(parts))


def fitted(*sizes, precision="fp32", folder=None, progress=None, loss=None, device="cpu", **options):
    """A task after its epochs; its network has no normalisation, so that samples do not see each other."""
    torch.manual_seed(0)
    network = UNet(len(BANDS), 2, depth=1, width=4, norm="none")
    segmenter = Segmenter(network, band_infos(), ModelInfo(Legend.of(["land", "water"])))
    fitting = Fitting(**{"epochs": 1, "learning_rate": 1e-3} | options)
    task = Watched(segmenter, loss or WeightedSum({"cross_entropy": 1.0}), Compose([]), fitting, seed=0)
    fit(task, batches(*(sizes or SIZES)), batches(3, seed=1), torch.device(device), precision, progress, folder)
    return task


@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_batches_that_make_up_a_step_are_one_batch_of_all_their_pixels(clip):
    gathered = fitted(2, 2, 2, 2, 1, accumulate=2, epochs=2, clip=clip)
    at_once = fitted(4, 4, 1, epochs=2, clip=clip)
    assert len(gathered.gradients) == len(at_once.gradients) == 6
    assert_close(gathered.gradients, at_once.gradients, rtol=1e-4, atol=1e-6)
    assert_close(gathered.weights, at_once.weights, rtol=1e-4, atol=1e-5)
    assert_allclose(gathered.rates, at_once.rates)
    assert gathered.history[0]["loss"] > 0


def test_a_step_of_batches_without_a_label_moves_nothing():
    task = fitted(accumulate=2)
    before = [p.detach().clone() for p in task.segmenter.parameters()]
    empty = [{"image": b["image"], "mask": torch.full_like(b["mask"], 255)} for b in batches(1, 1, 1)]
    task.fitting = Fitting(epochs=1, accumulate=2, weight_decay=0.0)
    fit(task, Batches(lambda _: iter(empty), 3), batches(3), CPU, "fp32", None)
    assert len(task.gradients) == 3 + 2
    assert_close([p.detach() for p in task.segmenter.parameters()], before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("clip", "longest"), [pytest.param(0.0, math.inf, id="as they are"), (0.01, 0.01), pytest.param(None, 1.0, id="1")]
)
def test_a_gradient_longer_than_the_clip_is_shortened_to_it(clip, longest):
    task = fitted(loss=WeightedSum({"cross_entropy": 5.0}), **({} if clip is None else {"clip": clip}))
    for shortened, gradient in zip(task.norms, task.gradients, strict=True):
        assert shortened == pytest.approx(min(norm(gradient), longest), rel=1e-4)
    assert max(norm(gradient) for gradient in task.gradients) > 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_moving_average_follows_each_step_once(accumulate):
    task = fitted(accumulate=accumulate, ema=0.75, epochs=2)
    assert len(task.weights) == 2 * math.ceil(5 / accumulate)
    expected, *later = task.weights  # the first step is where the average begins
    for weights in later:
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, weights, strict=True)]
    assert_close([p.detach() for p in task.current.parameters()], expected)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "poly", "constant"])
def test_the_learning_rate_goes_by_the_step_of_the_optimiser(schedule, accumulate):
    task = fitted(schedule=schedule, accumulate=accumulate, warmup=0.4, epochs=3)
    steps = 3 * math.ceil(5 / accumulate)
    assert_allclose(task.rates, [1e-3 * rate(schedule, step, 0.4, steps) for step in range(steps)], rtol=1e-9)


def test_a_plateau_of_the_validation_is_left_at_the_end_of_its_epoch():
    still = {"learning_rate": 1e-12, "warmup": 0.0, "epochs": 4}  # nothing is learnt, no epoch is better
    task = fitted(5, 5, schedule="plateau", plateau_patience=1, plateau_factor=0.1, **still)
    assert_allclose(task.rates, [1e-12] * 4 + [1e-13] * 2 + [1e-14] * 2)
    assert [row["learning_rate"] for row in task.history] == pytest.approx([1e-12, 1e-12, 1e-13, 1e-14])


@pytest.mark.parametrize(("precision", "device"), [("bf16", "cpu"), pytest.param("fp16", *GPU.values, marks=GPU.marks)])
def test_in_half_precision_losses_weights_and_what_is_learnt_stay_whole(precision, device):
    half, full = (fitted(precision=kind, epochs=8, device=device) for kind in (precision, "fp32"))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert half.types == {(dtype, torch.float32)}
    assert {p.dtype for p in half.segmenter.parameters()} == {torch.float32}
    losses = [[row["loss"] for row in task.history] for task in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert losses[0][-1] < 0.8 * losses[0][0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_asks_the_device_for_nothing(accumulate):
    task = Task(unet_model(depth=1), DiceCrossEntropy(), Compose([]), Fitting(accumulate=accumulate), seed=0)
    # tensors without values: who asks for one fails here, as on a GPU all that is under way has to be waited for
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = {"image": torch.zeros(2, 6, 16, 16), "mask": torch.zeros(2, 16, 16).long()}
        loss = task.training_step(batch, 0)
        loss.backward()
        with pytest.raises(DataDependentOutputException):
            float(loss)


def history(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_history_grows_by_the_epoch(tmp_path, epochs):
    seen = []

    def look(epoch):
        rows = history(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
        assert float(rows[-1]["val_miou"]) == pytest.approx(epoch.values["val_miou"], rel=1e-5)
        seen.append(len(rows))

    fitted(epochs=epochs, folder=tmp_path, progress=look)
    assert seen == list(range(1, epochs + 1))


def test_a_training_that_diverges_ends_and_says_so(monkeypatch):
    step = Watched.training_step
    monkeypatch.setattr(
        Watched, "training_step", lambda task, *at: step(task, *at) * (math.nan if task.current_epoch else 1.0)
    )
    with pytest.raises(DivergenceError, match=r"diverged in epoch 2: .*learning_rate below 0\.\d+"):
        fitted(epochs=3)


def test_a_training_that_dies_leaves_the_history_of_its_epochs(tmp_path):
    def die(epoch):
        if epoch.epoch == 2:
            raise MemoryError

    with pytest.raises(MemoryError):
        fitted(epochs=5, folder=tmp_path, progress=die)
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2"]


def test_tensorboard_shows_each_epochs_scores_and_each_steps_rate(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = fitted(epochs=2, accumulate=2, folder=tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / LOGS)).Reload()
    told = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    rates_ = told.pop("learning_rate")
    assert [step for step, _ in rates_] == [1, 2, 3, 4, 5, 6]
    assert_allclose([value for _, value in rates_], task.rates, rtol=1e-6)
    assert told.keys() == task.history[0].keys() - {"epoch", "learning_rate"}
    for name, scores in told.items():
        assert [step for step, _ in scores] == [1, 2]
        assert_allclose([value for _, value in scores], [row[name] for row in task.history], rtol=1e-6)


def test_without_tensorboard_nothing_of_it_is_written(tmp_path):
    fitted(folder=tmp_path)
    assert not (tmp_path / LOGS).exists()


def refused(folder, **options):
    """Train on data that must not be looked at."""
    source = Mock(spec=Source, legend=Legend.of(["land", "water"]))
    try:
        train(source, folder / "run", training=Fitting(**options))
    finally:
        assert source.method_calls == []
        assert list(folder.iterdir()) == []


def test_a_tensorboard_that_is_not_installed_is_missed_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'geounet\[tensorboard\]', or leave it out"):
        refused(tmp_path, tensorboard=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16", "device": "cpu"}, "torch does not compute fp16 well on cpu here; it does fp32"),
        ({"compile": True, "device": "cpu"}, r"cannot compile for cpu here .*a C\+\+ compiler such as g\+\+"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_anything_is_read(tmp_path, monkeypatch, options, message):
    def fail(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    with pytest.raises(DeviceError, match=message):
        refused(tmp_path, **options)


def test_a_compiled_network_learns_the_same_under_the_same_names(monkeypatch):
    traced = []

    def backend(graph, _):  # torch's tracing without a C++ compiler
        traced.append(graph)
        return graph

    plain = fitted(epochs=2)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    task = fitted(epochs=2, compile=True)
    assert traced
    assert task.keep().state_dict().keys() == plain.keep().state_dict().keys()
    assert not any("_orig_mod" in name for name in task.state_dict())
    assert_close(task.weights, plain.weights)
    assert task.history[-1]["val_loss"] == pytest.approx(plain.history[-1]["val_loss"])
