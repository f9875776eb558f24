"""Read, expand and check a config."""

import collections.abc
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import TypeAdapter

from ..errors import ConfigError
from ..training import checked
from .opening import LoadedConfig
from .sections import Config

S = TypeVar("S")


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
        inner, of_each = _dataclass_of(known[key])
        if inner is not None and value is not None:
            # a band's type may be a word alone
            named = [item for item in value.items() if isinstance(item[1], Mapping)] if of_each else [("", value)]
            for name, one in named:
                _known_keys(inner, one, f"{where}: {key}" + (f": {name}" if of_each else ""))


def _dataclass_of(kind: Any) -> tuple[Any, bool]:
    """Return the dataclass that an annotation names, alone or with None, and whether it is that of a mapping's values."""
    inside = get_args(kind)
    of_each = get_origin(kind) is collections.abc.Mapping
    held = inside[1] if of_each else kind
    candidates = get_args(held) if get_origin(held) in (Union, UnionType) else (held,)
    return next((one for one in candidates if isinstance(one, type) and is_dataclass(one)), None), of_each
