"""Train on torchgeo's data sets and data modules, by name [1]_.

References
----------
.. [1] A. J. Stewart et al., TorchGeo: deep learning with geospatial data, ACM SIGSPATIAL 2022, arXiv:2111.08872.
"""

import difflib
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ...core.bandtypes import BandType
from ...core.legend import Legend
from ...core.metrics import Confusion
from ...core.stats import BandStats, ClassCounts
from ...errors import ConfigError, SceneError
from ...evaluation import Evaluation
from ...nn.runtime import find_device
from ...nn.segmenter import Segmenter
from ...nn.tta import mean_over_sides
from ...raster.sampler import Survey
from ..options import Sampling
from .batches import Batches, Tensors
from .data import Source, check_classes

Arguments: TypeAlias = Mapping[str, Any]
SURVEY_BATCH = 8
"""Samples looked at together before the first epoch."""
THEIRS: Mapping[str, str] = {"train": "train", "validate": "val", "test": "test"}
"""What torchgeo calls the splits."""


@dataclass(frozen=True)
class TorchgeoOptions:
    """Images and masks of a torchgeo data set or data module, in place of scenes and labels."""

    legend: Mapping[int, str]
    """Names of the classes by their codes in the masks."""
    bands: Sequence[str]
    """Names of the channels of ``image``, in their order."""
    datamodule: str | None = None
    """Class of ``torchgeo.datamodules``; its splits, batches and samplers are used, not its normalisation."""
    dataset: str | Sequence[str] | None = None
    """Class of ``torchgeo.datasets``; of two, such as images and a land-cover map, the ground that both cover."""
    args: Arguments | Sequence[Arguments] = field(default_factory=dict)
    """Keyword arguments, such as ``root`` or ``paths``; of several data sets one mapping each."""
    splits: Mapping[Literal["train", "validate", "test"], Arguments] = field(default_factory=dict)
    """More keyword arguments of a data set for each split; by default its own ``split`` of that name."""
    shares: Mapping[Literal["train", "validate", "test"], Annotated[float, Field(gt=0)]] = field(default_factory=dict)
    """Instead of ``splits``, for a data set that has none: parts of the ground in cells of a grid, or of the samples."""
    ignore: Sequence[int] = ()
    """Codes of the masks that mean no label."""
    unknown: Literal["raise", "ignore"] = "raise"
    colors: Mapping[int | str, str | Sequence[int]] = field(default_factory=dict)
    nodata: float | None = None
    """Value of a band that means no data; such pixels teach nothing. NaN never counts."""

    def __post_init__(self) -> None:
        if (self.datamodule is None) == (self.dataset is None):
            raise ConfigError("torchgeo needs a datamodule or a dataset, one of the two.")
        if self.datamodule is not None and (self.splits or self.shares or not isinstance(self.args, Mapping)):
            raise ConfigError("a datamodule has its own splits and one set of args: leave out splits and shares.")
        if self.dataset is not None and not self.dataset:
            raise ConfigError("the list of torchgeo's data sets is empty.")
        if self.shares and not {"train", "validate"} <= self.shares.keys():
            raise ConfigError("shares cuts a data set into train and validate at least; give both a share.")
        if self.splits and self.shares:
            raise ConfigError("splits says how a data set is asked for each split, shares cuts it up; give one.")


class TorchgeoSource(Source):
    """Samples with an ``image`` (C, H, W) and a ``mask`` (H, W) from torchgeo.

    Geographic data sets are cut at random places for training and side by side for the scores, which are taken chip by
    chip: unlike those of scenes they count a pixel as often as chips hold it.

    Raises
    ------
    ConfigError
        torchgeo is not installed, knows no such class, or refuses the arguments; or its samples have no mask, or other
        channels than `bands` names.
    """

    def __init__(self, options: TorchgeoOptions, sampler: Sampling) -> None:
        self._options, self._sampler = options, sampler
        self.bands = tuple(options.bands)
        self.legend = Legend.of(options.legend, options.colors)
        check_classes(self.legend)
        self.types: Mapping[str, BandType] = {}
        self.splits = ("train", "validate", *(["test"] if self._loader("test", 1) is not None else []))
        self._digest = hashlib.sha256()

    def survey(self, sampler: Sampling) -> Survey:  # noqa: ARG002
        """One pass over the training samples."""
        self._digest = hashlib.sha256()
        total = Survey(BandStats.empty(len(self.bands)), ClassCounts.empty(len(self.legend)))
        for batch in self._batches("train", SURVEY_BATCH):
            image, mask = batch["image"].numpy(), batch["mask"].numpy()
            self._digest.update(image.tobytes() + mask.tobytes())
            valid = np.isfinite(image).all(axis=1)
            stats = BandStats.of(np.moveaxis(image, 1, 0), valid)
            total += Survey(stats, ClassCounts.of(mask[valid], len(self.legend)))
        return total

    def batches(self, seen: Survey, sampler: Sampling, batch_size: int) -> Batches:  # noqa: ARG002
        """Batches of the training split, as torchgeo draws them."""
        return Batches(lambda _: self._batches("train", batch_size), self._length("train", batch_size))

    def chips(self, sampler: Sampling, batch_size: int) -> Batches:  # noqa: ARG002
        """Batches of the validation split."""
        return Batches(lambda _: self._batches("validate", batch_size), self._length("validate", batch_size))

    def rehearse(self, model: Segmenter, mapping: Arguments) -> None:  # noqa: ARG002
        """Look for the device."""
        find_device(mapping["device"])

    def evaluate(self, model: Segmenter, split: str, mapping: Arguments) -> Evaluation:
        """Scores chip by chip, in float32."""
        device = find_device(mapping["device"])
        model = model.to(device).eval()
        total = Confusion.empty(len(self.legend))
        with torch.no_grad():
            for batch in self._batches(split, mapping.get("batch_size") or 1):
                images = batch["image"].to(device)
                scores = mean_over_sides(lambda image: model(image).softmax(1), images, mapping.get("tta", "none"))
                predicted = scores.argmax(1).cpu().numpy()
                total += Confusion.of(batch["mask"].numpy(), predicted, len(self.legend))
        model.to("cpu")
        return Evaluation(self.legend.names, total, {split: total})

    def origin(self) -> dict[str, Any]:
        """What was asked of torchgeo, its version, and a hash of the training samples as they were surveyed."""
        asked = {key: value for key, value in asdict(self._options).items() if value not in (None, {}, ())}
        return {
            "torchgeo": {"version": version("torchgeo"), **json.loads(json.dumps(asked, default=str))},
            "split": {split: {"chips": self._length(split, 1)} for split in self.splits},
            "data_hash": self._digest.hexdigest(),
        }

    def _length(self, split: str, batch_size: int) -> int:
        return len(self._loader(split, batch_size))

    def _batches(self, split: str, batch_size: int) -> Iterator[Tensors]:
        batches = iter(self._loader(split, batch_size))
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:  # each data set has errors of its own
                what = self._options.datamodule or self._options.dataset
                raise SceneError(f"torchgeo's {what} cannot be read: {' '.join(str(error).split())}") from error
            if batch is None:
                return
            yield self._checked(batch)

    def _checked(self, batch: Mapping[str, Any]) -> Tensors:
        """Batch with NaN where there is no data, and class ids for codes."""
        what = self._options.datamodule or self._options.dataset
        if not {"image", "mask"} <= batch.keys():
            raise ConfigError(
                f"samples of torchgeo's {what} have {', '.join(sorted(map(str, batch)))}; to learn a map they need an image and "
                "a mask. Take a data set for semantic segmentation, or two: images and a map of classes."
            )
        image = batch["image"].float()
        if image.ndim != 4 or image.shape[1] != len(self.bands):
            raise ConfigError(
                f"images of torchgeo's {what} have the shape {tuple(image.shape)} (sample, channel, row, column), but "
                f"{len(self.bands)} bands are named: {', '.join(self.bands)}."
            )
        codes: NDArray[Any] = batch["mask"].reshape(len(image), *image.shape[-2:]).numpy()
        ids = self.legend.encode(
            codes, ignore=self._options.ignore, unknown=self._options.unknown, source=f"torchgeo's {what}"
        )
        nodata = self._options.nodata
        usable = torch.isfinite(image) if nodata is None else torch.isfinite(image) & (image != nodata)
        valid = usable.all(dim=1)
        mask = torch.from_numpy(ids.astype(np.int64))
        mask[~valid] = self.legend.ignore_index
        image = torch.where(valid[:, None], image, torch.nan)
        return {"image": image.contiguous(memory_format=torch.channels_last), "mask": mask}

    def _loader(self, split: str, batch_size: int) -> Any:
        """`DataLoader` of a split; None for a test split that there is not."""
        if self._options.datamodule is not None:
            return self._loader_of_module(split, batch_size)
        dataset = self._dataset(split)
        return None if dataset is None else self._loader_of_set(dataset, split, batch_size)

    def _loader_of_module(self, split: str, batch_size: int) -> Any:
        kind = _found("datamodules", str(self._options.datamodule))
        assert isinstance(self._options.args, Mapping)
        arguments = dict(self._options.args)
        known = inspect.signature(kind).parameters
        if "patch_size" in known:
            arguments.setdefault("patch_size", self._sampler.side)
        if "length" in known and self._sampler.chips:
            arguments.setdefault("length", self._sampler.chips)
        module = _made(kind, arguments | {"batch_size": batch_size})
        try:
            module.setup("test" if split == "test" else "fit")
            return getattr(module, f"{THEIRS[split]}_dataloader")()
        except Exception as error:
            if split == "test":  # some have none
                return None
            raise ConfigError(_refused(kind, error)) from error

    def _dataset(self, split: str) -> Any:
        options = self._options
        names = [options.dataset] if isinstance(options.dataset, str) else list(options.dataset or ())
        given = [options.args] if isinstance(options.args, Mapping) else list(options.args)
        if len(names) != len(given):
            raise ConfigError(
                f"{len(names)} torchgeo data sets are named, but args has {len(given)} mappings: give one each."
            )
        kinds = [_found("datasets", name) for name in names]
        if options.shares:
            return self._shared([_made(kind, args) for kind, args in zip(kinds, given, strict=True)], split)
        more = options.splits.get(split)  # type: ignore[call-overload]
        if more is None:
            if options.splits or not all("split" in inspect.signature(kind).parameters for kind in kinds):
                if split == "test":
                    return None
                raise ConfigError(
                    f"torchgeo's {' and '.join(names)} must be told what to {split} with: give splits (keyword arguments of "
                    "each), or shares to cut it up."
                )
            more = {"split": THEIRS[split]}
        made = [_made(kind, {**args, **more}) for kind, args in zip(kinds, given, strict=True)]
        return _joined(made)

    def _shared(self, datasets: Sequence[Any], split: str) -> Any:
        """Part of a data set: cells of a grid over the ground, or samples."""
        whole = _joined(datasets)
        names = list(self._options.shares)
        if split not in names:
            return None
        parts = np.array([self._options.shares[name] for name in names])
        generator = torch.Generator().manual_seed(self._sampler.seed)
        fractions = (parts / parts.sum()).tolist()
        if _is_geographic(whole):
            cut = _torchgeo("datasets.splits").random_grid_cell_assignment(whole, fractions, generator=generator)
        else:
            cut = torch.utils.data.random_split(whole, fractions, generator)
        return cut[names.index(split)]

    def _loader_of_set(self, dataset: Any, split: str, batch_size: int) -> Any:
        training = split == "train"
        collate = _torchgeo("datasets").stack_samples
        if not _is_geographic(dataset):
            return torch.utils.data.DataLoader(dataset, batch_size, shuffle=training, collate_fn=collate)
        samplers, size = _torchgeo("samplers"), self._sampler.side
        sampler = (
            samplers.RandomGeoSampler(dataset, size, length=self._sampler.chips)
            if training
            else samplers.GridGeoSampler(dataset, size, size)
        )
        return torch.utils.data.DataLoader(dataset, batch_size, sampler=sampler, collate_fn=collate)


def _torchgeo(module: str) -> ModuleType:
    try:
        return import_module(f"torchgeo.{module}")
    except ImportError as error:
        raise ConfigError(
            f"the config has a section torchgeo, which cannot be imported ({error}): pip install 'geounet[torchgeo]'."
        ) from error


def _found(module: str, name: str) -> Any:
    """Class of torchgeo by name, and nothing else that its modules hold."""
    there = _torchgeo(module)
    known: Sequence[str] = there.__all__
    if name not in known or not inspect.isclass(getattr(there, name)):
        near = difflib.get_close_matches(name, known, n=3)
        raise ConfigError(
            f"torchgeo.{module} has no class {name}" + (f"; near it are {', '.join(near)}." if near else ".")
        )
    return getattr(there, name)


def _made(kind: Any, arguments: Arguments) -> Any:
    try:
        return kind(**arguments)
    except Exception as error:  # each data set has errors of its own
        raise ConfigError(_refused(kind, error)) from error


def _refused(kind: Any, error: Exception) -> str:
    why = " ".join(str(error).split()) or type(error).__name__
    return f"torchgeo's {kind.__name__} refuses its arguments: {why}"


def _joined(datasets: Sequence[Any]) -> Any:
    """The ground that all cover."""
    joined = datasets[0]
    for one in datasets[1:]:
        joined = joined & one
    return joined


def _is_geographic(dataset: Any) -> bool:
    return isinstance(dataset, _torchgeo("datasets").GeoDataset)
