"""Sections of a config, each one function's keyword arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ..core.bandtypes import BandType, Kind
from ..errors import ConfigError
from ..training import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling
from ..training.source.torchgeo import TorchgeoOptions

Split: TypeAlias = Literal["train", "validate", "test"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test")


@dataclass(frozen=True)
class Table:
    """A CSV with one row a scene, which says where its labels are and which split it is in."""

    path: str
    scene: str = "scene"
    """Column with the path of the scene, relative to the table."""
    labels: str | None = None
    """Column with the path of the labels, relative to the table."""
    split: str = "split"
    """Column with the split. If there is a section ``split``, rows of the test stay there where that makes no test of its
    own, and the rest is divided anew."""
    group: str | None = None
    """Column with the group: scenes that share ground, or a date."""
    splits: Mapping[Split, str] = field(default_factory=lambda: {"train": "train", "validate": "val", "test": "test"})
    """What the table calls each split."""
    leave_out: Sequence[Mapping[str, str | int | float]] = ()
    """Rows that match all columns of one of these are left out."""


@dataclass(frozen=True)
class SceneOptions:
    """Which images, and which of their bands."""

    train: str | Sequence[str] = ()
    """Paths or globs, one scene a match."""
    validate: str | Sequence[str] = ()
    test: str | Sequence[str] = ()
    paths: str | Sequence[str] = ()
    """Instead of the three, scenes that the section ``split`` divides; ``test`` may stand beside it where that makes no
    test of its own."""
    table: Table | None = None
    """Instead of all of these."""
    bands: Sequence[str] | None = None
    """Bands to train on, in this order; by default all that the scenes have."""
    names: Sequence[str] | Mapping[str, int] | None = None
    """Names of the bands in file order, or name: index, where the files do not say."""
    nodata: float | Mapping[str, float] | None = None
    """Over what the files declare; of all bands, or of each by name."""
    resolution: float | Literal["finest", "coarsest"] | None = None
    """Pixel size, in units of the CRS, that bands of several resolutions are brought to; by default the finest."""
    types: Mapping[str, BandType | Kind] = field(default_factory=dict)
    """Bands that hold no amounts: codes (``categorical``), bits (``bitmask``) or angles (``{kind: cyclic, period: 360}``)."""
    georeference: Literal["true", "nominal"] = "true"
    """``nominal`` if positions are made up, so that shared ground can only be found by its content."""
    leaks: Literal["refuse", "warn", "allow"] = "refuse"
    """What to do when two splits share ground; ``allow`` does not look."""

    def __post_init__(self) -> None:
        beside = [name for name in ("train", "validate", "test", "paths") if getattr(self, name)]
        if self.table is not None and beside:
            raise ConfigError(
                f"scenes come from the table or from {' and '.join(beside)}, and both are given: leave one out."
            )


@dataclass(frozen=True)
class LabelOptions:
    """True classes, and what their codes mean."""

    legend: Mapping[int, str]
    path: str | None = None
    """One file for all scenes, or a pattern with ``{stem}``; not with a table that has a labels column."""
    colors: Mapping[int | str, str | Sequence[int]] = field(default_factory=dict)
    """Of the classes, by code or name; masks in colours are read by them. A code in ``ignore`` may have one, too."""
    column: str | None = None
    layer: str | None = None
    background: int | None = None
    ignore: Sequence[int | str] = ()
    """Codes, or names in a column, that mean no label, beside nodata."""
    unknown: Literal["raise", "ignore"] = "raise"
    """What to do with codes that are in neither the legend nor ``ignore``."""
    aoi: str | None = None
    """Polygons of the ground that was labelled; outside of them nothing has a label."""
    aoi_layer: str | None = None


@dataclass(frozen=True)
class SplitOptions:
    """How scenes are divided into training, validation and test, so that no ground is in two of them."""

    by: Literal["scene", "group", "block"] = "group"
    """What stays whole: a scene, all scenes of a group, or square blocks of ground."""
    shares: Mapping[Split, Annotated[float, Field(ge=0)]] | None = None
    """Part of the labelled pixels that each split is to have; by default 0.7, 0.15 and 0.15."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cut into so many parts instead of by shares; one is validated on, or with ``--cross-validate`` each in its turn.
    There is no test but one that is named apart."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """The part, from 0, to validate on; by default the first."""
    size: Annotated[float, Field(gt=0)] | None = None
    """Side of a block, in metres."""
    buffer: Annotated[float, Field(ge=0)] = 0.0
    """Least distance between labelled pixels of two splits, in metres."""
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.by == "block" and self.size is None:
            raise ConfigError("blocks need a size, in metres.")
        if self.by != "block" and (self.size is not None or self.buffer):
            raise ConfigError(
                f"size and buffer are of blocks, and the split is by {self.by}: write by: block, or leave them out."
            )
        if self.folds is not None and self.shares is not None:
            raise ConfigError("splits are made by shares or by folds, and both are given: leave one of them out.")
        if self.folds is None and self.fold is not None:
            raise ConfigError(f"fold {self.fold} of how many? Say folds as well.")
        if self.folds is not None and (self.fold or 0) >= self.folds:
            raise ConfigError(f"of {self.folds} folds, numbered from 0, there is no fold {self.fold}.")


@dataclass(frozen=True)
class Config:
    """All sections of a config."""

    scenes: SceneOptions | None = None
    labels: LabelOptions | None = None
    split: SplitOptions | None = None
    """Needed for ``scenes.paths``; over the column of a table."""
    torchgeo: TorchgeoOptions | None = None
    """Instead of scenes and labels."""
    sampler: Sampling = field(default_factory=Sampling)
    model: Network = field(default_factory=Network)
    loss: Loss = field(default_factory=Loss)
    augment: Augmentation = field(default_factory=Augmentation)
    training: Fitting = field(default_factory=Fitting)
    inference: Inference = field(default_factory=Inference)
    card: Card = field(default_factory=Card)

    def __post_init__(self) -> None:
        if self.torchgeo is not None:
            beside = [name for name in ("scenes", "labels", "split") if getattr(self, name) is not None]
            if beside:
                raise ConfigError(f"torchgeo gives images and labels already: leave out {' and '.join(beside)}.")
        elif self.scenes and self.labels and self.scenes.table and self.scenes.table.labels and self.labels.path:
            raise ConfigError("labels.path and the table's column both say where labels are: leave one of them out.")
        elif self.scenes is None or self.labels is None:
            missing = " and ".join(name for name in ("scenes", "labels") if getattr(self, name) is None)
            raise ConfigError(f"there is no section {missing}; a config begins with scenes: and labels:.")
