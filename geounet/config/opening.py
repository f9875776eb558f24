"""Open what a config names: scenes, their labels, and which split each is in."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..core.bands import unnamed
from ..core.bandtypes import BandType, Kind
from ..core.legend import Legend
from ..errors import ConfigError, SplitError
from ..raster.audit import audit
from ..raster.labels import open_labels
from ..raster.sampler import Pair
from ..raster.scene import Scene, open_scene
from ..raster.splitting import SHARES, split_pairs
from ..training import PairSource, Source, types_of
from ..training.source.torchgeo import TorchgeoSource
from .sections import SPLITS, Config, LabelOptions, SceneOptions, SplitOptions, Table

Row: TypeAlias = tuple[str, str, str]
"""Scene, labels and group."""
ALL = "all"
"""Where scenes stand before they are divided."""


@dataclass(frozen=True)
class LoadedConfig:
    """A config and the folder that its paths are relative to."""

    path: Path
    config: Config
    values: Mapping[str, Any]
    """As written, expanded, with overrides."""

    def source(self) -> Source:
        """What to train on: scenes with labels, or what torchgeo gives.

        Raises
        ------
        ConfigError
            As `pairs`, or as torchgeo's data set refuses its arguments.
        """
        if self.config.torchgeo is not None:
            return TorchgeoSource(self.config.torchgeo, self.config.sampler)
        return PairSource(self.pairs(), self._scenes.types)

    def pairs(self) -> dict[str, list[Pair]]:
        """Scenes with their labels, by split; opened, and read only where blocks or classes are to be balanced.

        Raises
        ------
        ConfigError
            A path matches nothing, labels are not said, or the bands of one scene are given as many scenes.
        """
        opened = self.opened()
        if self.config.split is None:
            return opened
        kept = {split: pairs for split, pairs in opened.items() if split != ALL}
        return self.divided(opened[ALL]) | kept

    def folds(self) -> list[dict[str, list[Pair]]]:
        """Scenes by split, fold by fold: each part is validated on once, and a test that is named stays apart.

        Raises
        ------
        ConfigError
            The section ``split`` does not say how many folds there are, or it names one of them.
        SplitError
            The scenes cannot be divided so.
        """
        options = self.config.split
        if options is None or options.folds is None:
            raise ConfigError(f"{self.path} does not say into how many folds scenes are divided: set split.folds.")
        if options.fold is not None:
            raise ConfigError(f"{self.path} asks for fold {options.fold} alone; leave split.fold out to train all.")
        opened = self.opened()
        kept = {split: pairs for split, pairs in opened.items() if split != ALL}
        return [self.divided(opened[ALL], fold) | kept for fold in range(options.folds)]

    def divided(self, pool: Sequence[Pair], fold: int | None = None) -> dict[str, list[Pair]]:
        """Scenes by split, as the section ``split`` divides them; their labels are counted for it.

        Parameters
        ----------
        pool : sequence of Pair
        fold : int, optional
            The fold to validate on, instead of that of the section.

        Raises
        ------
        SplitError
            They cannot be divided so.
        """
        options = self.config.split or SplitOptions()
        blocks = options.by == "block"
        return split_pairs(
            pool, by=options.by, shares=None if options.folds else self._shares(), folds=options.folds,
            fold=(options.fold or 0) if fold is None else fold, size=options.size if blocks else None,
            buffer=options.buffer if blocks else 0.0, seed=options.seed,
        )  # fmt: skip

    def check_leaks(self, pairs: Mapping[str, Sequence[Pair]]) -> list[str]:
        """Sentences about ground that two splits share; none if ``scenes.leaks`` is ``allow``, or there is none.

        Raises
        ------
        SplitError
            There is some, and ``scenes.leaks`` is ``refuse``.
        """
        if self._scenes.leaks == "allow":
            return []
        found = audit(pairs, georeference=self._scenes.georeference)
        said = list(found.sentences())
        if said and self._scenes.leaks == "refuse":
            raise SplitError(
                f"{self.path}: two splits share ground, so scores would be too good. {' '.join(said[:3])} Set scenes.leaks=warn to "
                "go on all the same (geounet doctor lists all)."
            )
        return said

    def shuffled(self) -> dict[str, list[Pair]]:
        """Training and validation scenes split anew by chance, as if no two shared ground; the test stays out.

        What is divided by blocks is divided into blocks of one chip, without a buffer.

        Raises
        ------
        ConfigError
            There are no scenes: images come from torchgeo.
        SplitError
            There are too few scenes.
        """
        options, seed, pairs = self.config.split, self.config.sampler.seed, self.pairs()
        pool = [*pairs["train"], *pairs["validate"]]
        shares = {split: len(pairs[split]) / len(pool) for split in ("train", "validate")}
        if options is None or options.by != "block":
            return split_pairs(pool, by="scene", shares=shares, seed=seed)
        if options.folds:
            shares = {"train": 1 - 1 / options.folds, "validate": 1 / options.folds}
        else:
            asked = self._shares()
            shares = {split: asked[split] / (asked["train"] + asked["validate"]) for split in ("train", "validate")}
        sizes = [size for pair in pool if (size := pair.scene.grid.pixel_size_m) is not None]
        side = self.config.sampler.side * (min(sizes) if sizes else 1.0)
        return split_pairs(pool, by="block", size=side, shares=shares, seed=seed)

    def opened(self) -> dict[str, list[Pair]]:
        """Scenes with their labels by the split that paths or table name; under `ALL` what is still to be divided."""
        opened = {split: [self.open_row(row) for row in chosen] for split, chosen in self.rows().items()}
        for split, pairs in opened.items():
            self.refuse_loose_bands(split, [pair.scene for pair in pairs])
        return opened

    def rows(self) -> dict[str, list[Row]]:
        """What there is to open, by the split that paths or table name; under `ALL` what is still to be divided.

        Raises
        ------
        ConfigError
            A path matches nothing, labels are not said, or the table lacks a column.
        """
        return self._table(self._scenes.table) if self._scenes.table else self._globs()

    def named(self) -> list[Row]:
        """All that the config knows of: beside `rows`, what the table leaves out or puts in no split."""
        table = self._scenes.table
        if table is None:
            return [row for rows in self._globs().values() for row in rows]
        path = Path(self._resolve(table.path))
        return [self._row(table, path.parent, values) for values in self._read_table(path)[1]]

    def sections(self) -> dict[str, Any]:
        """Keyword arguments of `train`."""
        names = ("sampler", "model", "loss", "augment", "training", "inference", "card")
        found = {name: getattr(self.config, name) for name in names}
        if (folder := self.config.sampler.cache_folder) is not None:
            found["sampler"] = replace(self.config.sampler, cache_folder=self._resolve(folder))
        if (weights := self.config.model.encoder_weights) is not None and weights.endswith(".safetensors"):
            found["model"] = replace(self.config.model, encoder_weights=self._resolve(weights))
        return found

    @property
    def types(self) -> Mapping[str, BandType | Kind]:
        """Bands that hold no amounts, as written."""
        return self._scenes.types

    @property
    def _makes_test(self) -> bool:
        """True if the section ``split`` cuts out a test of its own."""
        split = self.config.split
        return split is not None and split.folds is None and bool(self._shares().get("test"))

    def _shares(self) -> dict[str, float]:
        options = self.config.split
        shares = SHARES if options is None or options.shares is None else options.shares
        return {str(split): share for split, share in shares.items()}

    @property
    def _scenes(self) -> SceneOptions:
        if self.config.scenes is None:
            raise ConfigError(f"{self.path} has no scenes: its images come from torchgeo.")
        return self.config.scenes

    @property
    def _labels(self) -> LabelOptions:
        if self.config.labels is None:
            raise ConfigError(f"{self.path} has no labels: they come from torchgeo.")
        return self.config.labels

    @cached_property
    def legend(self) -> Legend:
        """Classes, in the order of the model's ids."""
        ignored = {key: colour for key, colour in self._labels.colors.items() if key in self._labels.ignore}
        return Legend.of(
            self._labels.legend, {key: one for key, one in self._labels.colors.items() if key not in ignored}
        )

    def refuse_loose_bands(self, split: str, scenes: Sequence[Scene]) -> None:
        """Refuse unnamed single bands on one grid: bands of a scene, which a pattern takes for scenes.

        Raises
        ------
        ConfigError
            There are some.
        """
        loose = [scene for scene in scenes if scene.bands == (unnamed(1),) and scene.grid.placed]
        if len(loose) > 1 and all(scene.grid.same_pixels(loose[0].grid) for scene in loose[1:]):
            key = "paths" if split == ALL else split
            raise ConfigError(
                f"{self.path}: scenes.{key} names {len(loose)} files of one unnamed band on one grid ({loose[0].source}, "
                f"{loose[1].source}, …), which look like the bands of one scene. Name their folder, or stack them (gdalbuildvrt "
                "-separate)."
            )

    def open_row(self, row: Row, *, unknown: Literal["raise", "ignore"] | None = None) -> Pair:
        """A scene with its labels.

        Parameters
        ----------
        row : Row
            One of `rows`.
        unknown : {'raise', 'ignore'}, optional
            Instead of what the config says of codes that the legend does not know.

        Raises
        ------
        SceneError, UnsupportedRasterError, BandMismatchError
            The scene cannot be opened, or lacks a band.
        LabelError, LegendError
            The labels cannot.
        """
        scene_path, labels_path, group = row
        options = self._labels
        scene = self._open(scene_path)
        labels = open_labels(
            labels_path, scene.grid, self.legend, column=options.column, layer=options.layer,
            background=options.background, ignore=options.ignore, unknown=unknown or options.unknown,
            aoi=None if options.aoi is None else self._resolve(options.aoi), aoi_layer=options.aoi_layer,
            colors=options.colors,
        )  # fmt: skip
        return Pair(scene, labels, group)

    def _open(self, path: str) -> Scene:
        scenes = self._scenes
        scene = open_scene(path, bands=scenes.names, nodata=scenes.nodata, resolution=scenes.resolution)
        if scenes.bands is not None:
            scene = scene.select(scenes.bands)
        return scene.by_nearest([name for name, kind in types_of(scene.bands, scenes.types).items() if kind.typed])

    def _resolve(self, text: str) -> str:
        return _path(self.path.absolute().parent, text)

    def _table(self, table: Table) -> dict[str, list[Row]]:
        path = Path(self._resolve(table.path))
        columns, rows = self._read_table(path)
        if not rows:
            raise ConfigError(f"{path} is empty; a table has a header and one row a scene.")
        divided = self.config.split is not None
        needed = {table.scene, *filter(None, (table.labels, table.group)), *_names(table.leave_out)}
        if missing := (needed | (set() if divided else {table.split})) - set(columns):
            raise ConfigError(f"{path} has no column {', '.join(sorted(missing))}; it has {', '.join(columns)}.")

        def row(values: Mapping[str, str]) -> Row:
            return self._row(table, path.parent, values)

        if not divided and not (told := {one[table.split] for one in rows}) & set(table.splits.values()):
            raise ConfigError(
                f"{path} calls its splits {', '.join(sorted(told))}, and none of {', '.join(table.splits.values())}: say what "
                "each is called (table.splits)."
            )
        kept = [
            one for one in rows if not any(all(one[k] == str(v) for k, v in rule.items()) for rule in table.leave_out)
        ]
        if divided:
            apart = table.split in columns and not self._makes_test
            test = [one for one in kept if apart and one[table.split] == table.splits.get("test")]
            pool = [one for one in kept if one not in test]
            return {ALL: list(map(row, pool))} | ({"test": list(map(row, test))} if test else {})
        return {
            split: [row(values) for values in kept if values[table.split] == name]
            for split, name in table.splits.items()
        }

    def _row(self, table: Table, folder: Path, values: Mapping[str, str]) -> Row:
        if not values[table.scene]:
            raise ConfigError(
                f"{self._resolve(table.path)} has a row whose {table.scene} is empty; name a scene, or leave it out."
            )
        scene = _path(folder, values[table.scene])
        labels = _path(folder, values[table.labels]) if table.labels else self._labels_of(scene)
        return scene, labels, values[table.group] if table.group else ""

    def _read_table(self, path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a byte order mark
                reader = csv.DictReader(file, restval="")
                return reader.fieldnames or (), list(reader)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot read the table {path}: {error.strerror}.") from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: the table {path} is not CSV in UTF-8: {error}.") from error

    def _globs(self) -> dict[str, list[Row]]:
        scenes = self._scenes
        named = [split for split in SPLITS if getattr(scenes, split)]
        if scenes.paths and named and (named != ["test"] or self._makes_test):
            raise ConfigError(
                f"{self.path}: scenes.paths is for scenes that the section split divides, and scenes.{named[0]} for those "
                "that are divided already; give one or the other, or scenes.test beside a split without a test."
            )
        if bool(scenes.paths) != (self.config.split is not None):
            raise ConfigError(
                f"{self.path}: scenes.paths and the section split go together: the first names the scenes, the second says "
                "how they are divided into train, validate and test."
            )
        divided = {ALL: self._matched("paths", scenes.paths)} if scenes.paths else {}
        return divided | {split: self._matched(split, getattr(scenes, split)) for split in named}

    def _matched(self, key: str, patterns: str | Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            full = self._resolve(pattern)
            found = _matches(full)
            if not found:
                raise ConfigError(f"{self.path}: scenes.{key} names {pattern}, and nothing matches {full}.")
            rows.extend((scene, self._labels_of(scene), "") for scene in found)
        return rows

    def _labels_of(self, scene: str) -> str:
        pattern = self._labels.path
        if pattern is None:
            raise ConfigError(
                f"{self.path}: labels.path is missing: name a file, or a pattern such as labels/{{stem}}.tif."
            )
        return self._resolve(pattern.replace("{stem}", Path(scene).stem))


def _path(folder: Path, text: str) -> str:
    """A path relative to a folder, made absolute; what GDAL fetches from elsewhere stays as it is."""
    return text if _is_remote(text) else os.path.normpath(folder / Path(text).expanduser())


def _is_remote(path: str) -> bool:
    return "://" in path or path.startswith("/vsi")


def _matches(path: str) -> list[str]:
    """The path itself, or what it matches as a pattern, by name."""
    full = Path(path)
    if _is_remote(path) or full.exists():
        return [path]
    return [str(found) for found in sorted(Path(full.anchor).glob(str(full.relative_to(full.anchor))))]


def _names(rules: Sequence[Mapping[str, Any]]) -> set[str]:
    return {name for rule in rules for name in rule}
