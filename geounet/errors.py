"""Refusals: each says what was found, what was expected, and what to do next.

Every error raised on purpose is a `GeoUNetError` and also the builtin exception that a caller would
guess, so ``except ValueError`` and ``except OSError`` keep working.
"""


class GeoUNetError(Exception):
    """Anything geounet refuses on purpose; its text is one message fit for a person."""


class SceneError(GeoUNetError, OSError):
    """A raster cannot be opened, or its pixels cannot be read."""


class UnsupportedRasterError(GeoUNetError, ValueError):
    """A raster opens, but holds what a class map cannot be made from (complex numbers, no bands)."""


class BandMismatchError(GeoUNetError, ValueError):
    """A scene lacks a band that was asked for, or its bands cannot be told apart by name."""


class GridError(GeoUNetError, ValueError):
    """Two grids do not fit together, or a grid has no place on Earth where one is needed."""


class LegendError(GeoUNetError, ValueError):
    """A class code is unknown, given twice, or cannot be stored."""


class LabelError(GeoUNetError, ValueError):
    """Labels cannot be brought onto the image's grid."""


class ModelFileError(GeoUNetError, ValueError):
    """A file is not a model that geounet can read safely."""


class ModelMismatchError(GeoUNetError, ValueError):
    """A scene's values or pixel size cannot be what the model was trained on."""


class ConfigError(GeoUNetError, ValueError):
    """A config has an unknown key, a missing one, or a value out of range."""


class OutputError(GeoUNetError, OSError):
    """An output cannot be written where it was asked for."""


class OutputExistsError(GeoUNetError, FileExistsError):
    """An output is there already, and overwriting was not asked for."""


class DeviceError(GeoUNetError, RuntimeError):
    """The device, backend or precision asked for is not to be had on this machine."""


class DivergenceError(GeoUNetError, ArithmeticError):
    """A training has come to weights that are no numbers."""


class SplitError(GeoUNetError, ValueError):
    """Scenes or ground cannot be shared out between splits as asked."""
