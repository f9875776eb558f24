"""A config is a call written down: each section holds one function's keyword arguments.

Relative paths are relative to the config file; ``${VAR:-default}`` is expanded from the environment; an unknown
key is refused with the nearest known one.
"""

import csv
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import yaml
from pydantic import TypeAdapter

from .core.bands import unnamed
from .core.legend import Legend
from .errors import ConfigError
from .raster.labels import open_labels
from .raster.sampler import Pair
from .raster.scene import Scene, open_scene
from .training import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling, checked

S = TypeVar("S")
Split: TypeAlias = Literal["train", "validate", "test"]
Row: TypeAlias = tuple[str, str, str]
"""Scene, labels and group."""
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
    """Column with the split."""
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
    table: Table | None = None
    """Instead of the three."""
    bands: Sequence[str] | None = None
    """Bands to train on, in this order; by default all that the scenes have."""
    names: Sequence[str] | Mapping[str, int] | None = None
    """Names of the bands in file order, or name: index, where the files do not say."""
    nodata: float | None = None
    """Over what the files declare."""


@dataclass(frozen=True)
class LabelOptions:
    """True classes, and what their codes mean."""

    legend: Mapping[int, str]
    path: str | None = None
    """One file for all scenes, or a pattern with ``{stem}``; not with a table that has a labels column."""
    colors: Mapping[int | str, str | Sequence[int]] = field(default_factory=dict)
    column: str | None = None
    layer: str | None = None
    background: int | None = None
    ignore: Sequence[int] = ()
    unknown: Literal["raise", "ignore"] = "raise"


@dataclass(frozen=True)
class Config:
    """All sections of a config."""

    scenes: SceneOptions
    labels: LabelOptions
    sampler: Sampling = field(default_factory=Sampling)
    model: Network = field(default_factory=Network)
    loss: Loss = field(default_factory=Loss)
    augment: Augmentation = field(default_factory=Augmentation)
    training: Fitting = field(default_factory=Fitting)
    inference: Inference = field(default_factory=Inference)
    card: Card = field(default_factory=Card)


@dataclass(frozen=True)
class LoadedConfig:
    """A config and the folder that its paths are relative to."""

    path: Path
    config: Config
    values: Mapping[str, Any]
    """As written, expanded, with overrides."""

    def pairs(self) -> dict[str, list[Pair]]:
        """Scenes with their labels, by split; opened, not read.

        Raises
        ------
        ConfigError
            A path matches nothing, labels are not said, or the bands of one scene are given as many scenes.
        """
        labels = self.config.labels
        legend = Legend.of(labels.legend, labels.colors)
        opened = {
            split: [self._pair(legend, *row) for row in rows]
            for split, rows in (self._table() if self.config.scenes.table else self._globs()).items()
        }
        for split, pairs in opened.items():
            self._refuse_loose_bands(split, [pair.scene for pair in pairs])
        return opened

    def _refuse_loose_bands(self, split: str, scenes: Sequence[Scene]) -> None:
        """Refuse unnamed single bands on one grid: bands of a scene, which a pattern takes for scenes."""
        loose = [scene for scene in scenes if scene.bands == (unnamed(1),) and scene.grid.placed]
        if len(loose) > 1 and all(scene.grid.same_pixels(loose[0].grid) for scene in loose[1:]):
            raise ConfigError(
                f"{self.path}: scenes.{split} names {len(loose)} files of one unnamed band on one grid ({loose[0].source}, "
                f"{loose[1].source}, …), which look like the bands of one scene. Name their folder, or stack them (gdalbuildvrt "
                "-separate)."
            )

    def sections(self) -> dict[str, Any]:
        """Keyword arguments of `train`."""
        names = ("sampler", "model", "loss", "augment", "training", "inference", "card")
        return {name: getattr(self.config, name) for name in names}

    def _pair(self, legend: Legend, scene_path: str, labels_path: str, group: str) -> Pair:
        options, scenes = self.config.labels, self.config.scenes
        scene = open_scene(scene_path, bands=scenes.names, nodata=scenes.nodata)
        if scenes.bands is not None:
            scene = scene.select(scenes.bands)
        labels = open_labels(
            labels_path, scene.grid, legend, column=options.column, layer=options.layer,
            background=options.background, ignore=options.ignore, unknown=options.unknown,
        )  # fmt: skip
        return Pair(scene, labels, group)

    def _resolve(self, text: str) -> str:
        return _path(self.path.absolute().parent, text)

    def _table(self) -> dict[str, list[Row]]:
        table = self.config.scenes.table
        assert table is not None
        path = Path(self._resolve(table.path))
        columns, rows = self._read_table(path)
        if not rows:
            raise ConfigError(f"{path} is empty; a table has a header and one row a scene.")
        needed = {table.scene, table.split, *filter(None, (table.labels, table.group)), *_names(table.leave_out)}
        if missing := needed - set(columns):
            raise ConfigError(f"{path} has no column {', '.join(sorted(missing))}; it has {', '.join(columns)}.")

        def row(values: Mapping[str, str]) -> Row:
            scene = _path(path.parent, values[table.scene])
            labels = _path(path.parent, values[table.labels]) if table.labels else self._labels_of(scene)
            return scene, labels, values[table.group] if table.group else ""

        return {
            split: [
                row(values)
                for values in rows
                if values[table.split] == name
                and not any(all(values[k] == str(v) for k, v in rule.items()) for rule in table.leave_out)
            ]
            for split, name in table.splits.items()
        }

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
        chosen: dict[str, list[Row]] = {}
        for split in SPLITS:
            patterns = getattr(self.config.scenes, split)
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                full = self._resolve(pattern)
                found = _matches(full)
                if not found:
                    raise ConfigError(f"{self.path}: scenes.{split} names {pattern}, and nothing matches {full}.")
                chosen.setdefault(split, []).extend((scene, self._labels_of(scene), "") for scene in found)
        return chosen

    def _labels_of(self, scene: str) -> str:
        pattern = self.config.labels.path
        if pattern is None:
            raise ConfigError(
                f"{self.path}: labels.path is missing: name a file, or a pattern such as labels/{{stem}}.tif."
            )
        return self._resolve(pattern.replace("{stem}", Path(scene).stem))


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read, expand and check a config.

    Parameters
    ----------
    path : path
        YAML.
    overrides : sequence of str
        ``section.key=value``, the value as YAML.

    Raises
    ------
    ConfigError
        The file cannot be read, a key is unknown or missing, or a value is of the wrong kind.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no sections; a config begins with scenes: and labels:.")
    values = expand(values)
    for override in overrides:
        _override(values, override)
    return LoadedConfig(path, section(Config, values, str(path)), values)


def section(kind: type[S], values: Any, where: str) -> S:
    """Values as a dataclass, checked.

    Raises
    ------
    ConfigError
        Naming `where`, what was found and the nearest known key.
    """
    _known_keys(kind, values, where)
    return checked(kind, values, f"{where}: ")


def schema() -> dict[str, Any]:
    """JSON Schema of a config, for editors."""
    return TypeAdapter(Config).json_schema()


def expand(value: Any) -> Any:
    """Replace ``${VAR}`` and ``${VAR:-default}`` in all strings; as in a shell, the default is for what is empty too.

    Raises
    ------
    ConfigError
        A variable is not set and has no default.

    Examples
    --------
    >>> expand({"path": "${NO_SUCH_VARIABLE:-data}/scene.tif"})
    {'path': 'data/scene.tif'}
    """
    if isinstance(value, dict):
        return {key: expand(one) for key, one in value.items()}
    if isinstance(value, list):
        return [expand(one) for one in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", _variable, value)
    return value


def _variable(match: re.Match[str]) -> str:
    name, default = match.groups()
    value = os.environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise ConfigError(f"the config uses ${{{name}}}, which is not set: set it, or write ${{{name}:-default}}.")
    return value


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


def _override(values: dict[str, Any], text: str) -> None:
    name, sign, value = text.partition("=")
    *parents, last = name.strip().replace("-", "_").split(".")
    if not sign or not parents:
        raise ConfigError(f"--set takes section.key=value, not {text!r}.")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {text}: {parent} is not a section.")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not YAML: {' '.join(str(error).split())}.") from error


def _known_keys(kind: Any, values: Any, where: str) -> None:
    """Refuse keys that a dataclass does not have, here and in the sections below."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} should hold keys and values, not {values!r}.")
    known = {f.name: f.type for f in fields(kind)}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
        inner = _dataclass_of(known[key])
        if inner is not None and value is not None:
            _known_keys(inner, value, f"{where}: {key}")


def _dataclass_of(kind: Any) -> Any:
    """Return the dataclass that an annotation names, alone or with None."""
    candidates = getattr(kind, "__args__", (kind,))
    return next((one for one in candidates if isinstance(one, type) and is_dataclass(one)), None)
