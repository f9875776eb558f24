"""A config is a call written down: each section holds one function's keyword arguments.

Relative paths are relative to the config file; ``${VAR:-default}`` is expanded from the environment; an unknown
key is refused with the nearest known one.
"""

from .loading import expand, load_config, schema, section
from .opening import LoadedConfig
from .sections import SPLITS, Config, LabelOptions, SceneOptions, SplitOptions, Table

__all__ = [
    "SPLITS", "Config", "LabelOptions", "LoadedConfig", "SceneOptions", "SplitOptions", "Table", "expand", "load_config",
    "schema", "section",
]  # fmt: skip
