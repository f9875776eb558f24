"""Accuracy of recipes, networks and plain references on the split of a config: a JSON line a run, and a table of them.

    export HLS_WATER=...
    python tests/benchmarks/accuracy.py run configs/worldcover-hls.yaml accuracy.jsonl recipe torchgeo discriminant
    python tests/benchmarks/accuracy.py table accuracy.jsonl

`discriminant` is a linear discriminant on single pixels. `torchgeo` is its stock segmentation task: U-Net on ResNet-18,
cross-entropy, AdamW of 1e-3 in one cycle, 400 steps of 16 chips of 128 x 128, flips and turns, bands standardised. All
others train the config, with the changes listed in `VARIANTS`. Everything is scored by the same engine, over all valid,
labelled pixels of a split; nothing here looks at the test split before it is printed.
"""

import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import lightning
import numpy as np
import torch
import yaml
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

from geounet.config import load_config
from geounet.evaluation import Evaluation, evaluate
from geounet.nn.augment import FlipsAndTurns
from geounet.nn.segmenter import BandInfo, ModelInfo, Segmenter
from geounet.raster.sampler import Survey, plan_grid, read_batches
from geounet.training import PairSource, Sampling, train

OF_PLAIN_NETWORKS = "architecture", "depth", "width", "max_width", "convolutions", "residual", "initialisation"
"""Keys of the section `model` that mean nothing beside an encoder."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "recipe": {},
    "no differences": {"model.differences": False},
    "inverse class weights": {"loss.class_weights": "inverse"},
    "median class weights": {"loss.class_weights": "median"},
    "no class weights": {"loss.class_weights": "none"},
    "cross-entropy alone": {"loss.dice": 0},
    "plain cross-entropy": {"loss.dice": 0, "loss.class_weights": "none"},
    "no augmentation": {"augment": {"flips_and_turns": False}},
    "flips and turns alone": {"augment": {}},
    "no cutmix": {"augment.cutmix": 0},
    "no moving average": {"training.ema": 0},
    "moving average": {"training.ema": 0.98},
    "half the width": {"model.width": 8},
    "twice the width": {"model.width": 32},
    "U-Net++": {"model.architecture": "unet++"},
    "ResNet-18": {"model.encoder_name": "resnet18", "model.encoder_depth": 4},
}  # fmt: skip
"""What each changes in a config."""


def changed(config: Path, changes: Mapping[str, Any], seed: int, folder: Path) -> Path:
    """Copy of a config with changes; its paths must be absolute, or begin with a variable that is."""
    values: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
    for name, value in {**changes, "sampler.seed": seed}.items():
        section, _, key = name.partition(".")
        if key:
            values.setdefault(section, {})[key] = value
        else:
            values[section] = value
    if values["model"].get("encoder_name"):
        values["model"] = {key: value for key, value in values["model"].items() if key not in OF_PLAIN_NETWORKS}
    copy = folder / config.name
    copy.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return copy


def recipe(config: Path, changes: Mapping[str, Any], seed: int) -> Mapping[str, Evaluation]:
    """Scores of a config with changes."""
    with TemporaryDirectory() as folder:
        loaded = load_config(changed(config, changes, seed, Path(folder)))
        run = train(loaded.source(), Path(folder) / "run", **loaded.sections())
    return {"validate": run.validation} | ({"test": run.test} if run.test else {})


class Discriminant(nn.Module):
    """A linear discriminant on single pixels, as a 1 x 1 convolution."""

    def __init__(self, fitted: LinearDiscriminantAnalysis) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(fitted.coef_, dtype=torch.float32))
        self.register_buffer("bias", torch.tensor(fitted.intercept_, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """Scores (N, K, H, W) of features (N, F, H, W)."""
        logits = torch.einsum("kf,nfhw->nkhw", self.weight, features) + self.bias.view(1, -1, 1, 1)
        return logits if len(self.bias) > 1 else torch.cat([torch.zeros_like(logits), logits], 1)


class Padded(nn.Module):
    """A network of others, with the name of the multiple that its inputs must have."""

    stride = 32

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Scores (N, K, H, W) of features (N, C, H, W), mirrored up to a multiple of 32."""
        height, width = features.shape[-2:]
        padded = nn.functional.pad(features, (0, -width % 32, 0, -height % 32), mode="replicate")
        return self.network(padded)[..., :height, :width]  # type: ignore[no-any-return]


def reference(name: str, config: Path, seed: int) -> Mapping[str, Evaluation]:
    """Scores of a plain reference on the data of a config."""
    source = load_config(config).source()
    if not isinstance(source, PairSource):
        raise click.UsageError(f"{config} has no scenes.")
    seen = source.survey(Sampling())
    bands = [
        BandInfo(band, float(mean), float(std))
        for band, mean, std in zip(source.bands, seen.stats.mean, seen.stats.std, strict=True)
    ]
    unfitted = Segmenter(nn.Identity(), bands, ModelInfo(source.legend))
    network = discriminant(source, unfitted, seed) if name == "discriminant" else stock(source, unfitted, seen, seed)
    model = Segmenter(network, bands, ModelInfo(source.legend)).eval()
    splits = [split for split in ("validate", "test") if split in source.splits]
    options = {"backend": "torch", "precision": "fp32", "force": True}
    return {split: evaluate(model, source.pairs[split], **options) for split in splits}


def discriminant(source: PairSource, model: Segmenter, seed: int, most: int = 400_000) -> nn.Module:
    """A linear discriminant, fitted to at most so many pixels drawn from the training scenes."""
    rng = np.random.default_rng(seed)
    features, classes = [], []
    pairs = source.pairs["train"]
    plan = plan_grid(pairs, 128)
    share = most / (len(plan) * 128**2)
    for batch in read_batches(pairs, plan, 16):
        assert batch.mask is not None
        image = torch.from_numpy(batch.image)
        seen = model.prepare(torch.where(torch.isfinite(image), image, model.mean.view(1, -1, 1, 1)))
        chosen = (batch.mask != source.legend.ignore_index) & (rng.random(batch.mask.shape) < share)
        features.append(seen.permute(0, 2, 3, 1).numpy()[chosen])
        classes.append(batch.mask[chosen])
    fitted = LinearDiscriminantAnalysis().fit(np.concatenate(features), np.concatenate(classes))
    absent = sorted(set(range(len(source.legend))) - set(fitted.classes_.tolist()))
    if absent:
        raise click.UsageError(f"the training scenes lack classes {absent}.")
    return Discriminant(fitted)


def stock(
    source: PairSource, model: Segmenter, seen: Survey, seed: int, steps: int = 400, batch: int = 16
) -> nn.Module:
    """torchgeo's segmentation task, trained as its documentation does, but for AdamW in one cycle."""
    from torchgeo.trainers import SemanticSegmentationTask

    class Task(SemanticSegmentationTask):
        def on_after_batch_transfer(self, samples: dict[str, Tensor], _: int) -> dict[str, Tensor]:
            """Standardised, flipped and turned."""
            image = samples["image"]
            image = model.prepare(torch.where(torch.isfinite(image), image, model.mean.view(1, -1, 1, 1)))
            image, mask = FlipsAndTurns()(image, samples["mask"], chance)
            return {"image": image, "mask": mask}

        def configure_optimizers(self) -> Any:
            """As others train it."""
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=1e-4)
            cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    lightning.seed_everything(seed, verbose=False)
    chance = torch.Generator().manual_seed(seed)
    task = Task(
        model="unet", backbone="resnet18", weights=None, in_channels=len(source.bands), task="multiclass",
        num_classes=len(source.legend), loss="ce", lr=1e-3, ignore_index=source.legend.ignore_index,
    )  # fmt: skip
    sampler = Sampling(chip_size=128, chips_per_epoch=steps * batch, seed=seed)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="auto", precision="bf16-mixed", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, source.batches(seen, sampler, batch))
    return Padded(task.model.cpu())


def row(config: Path, variant: str, seed: int) -> dict[str, Any]:
    """What a run brought."""
    began = time.perf_counter()
    scores = recipe(config, VARIANTS[variant], seed) if variant in VARIANTS else reference(variant, config, seed)
    return {
        "config": config.stem, "variant": variant, "seed": seed, "seconds": round(time.perf_counter() - began),
        **{split: {"miou": one.miou, "classes": one.report()["classes"]} for split, one in scores.items()},
    }  # fmt: skip


def mean_and_range(values: Sequence[float]) -> str:
    """As ``0.512 (0.500–0.530)``."""
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table in Markdown: mIoU of validation and test, and IoU of each class on the test."""
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for one in rows:
        runs[one["config"], one["variant"]].append(one)
    yield "| config | variant | seeds | s | validation mIoU | test mIoU | test IoU by class |"
    yield "|---|---|---|---|---|---|---|"
    for (config, variant), some in sorted(runs.items()):
        tested = [one["test"] for one in some if "test" in one]
        classes = {
            name: float(np.mean([one["classes"][name]["iou"] or 0.0 for one in tested])) for name in some[0]["validate"]["classes"]
        } if tested else {}  # fmt: skip
        yield (
            f"| {config} | {variant} | {len(some)} | {np.median([one['seconds'] for one in some]):.0f} "
            f"| {mean_and_range([one['validate']['miou'] for one in some])} "
            f"| {mean_and_range([one['miou'] for one in tested]) if tested else ''} "
            f"| {', '.join(f'{name} {iou:.3f}' for name, iou in classes.items())} |"
        )


@click.group()
def main() -> None:
    """Measure accuracy."""


@main.command("run")
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("variants", nargs=-1, type=click.Choice(["discriminant", "torchgeo", *VARIANTS]))
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
def run(config: Path, out: Path, variants: Sequence[str], seeds: Sequence[int]) -> None:
    """Train and score VARIANTS of CONFIG; a line a run is added to OUT."""
    warnings.filterwarnings("ignore", module="lightning.*|torchgeo.*")
    for seed in seeds:
        for variant in variants:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row(config, variant, seed)) + "\n")


@main.command("table")
@click.argument("out", type=click.Path(path_type=Path, exists=True))
def table(out: Path) -> None:
    """Print the runs in OUT as a table."""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for line in lines(rows):
        click.echo(line)


if __name__ == "__main__":
    main()
