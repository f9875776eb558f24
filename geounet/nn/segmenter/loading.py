"""Models by the name of their file, or by that under which they come with geounet."""

from importlib import resources
from pathlib import Path

from ...errors import ModelFileError
from .file import SUFFIX
from .model import Segmenter


def bundled() -> dict[str, Path]:
    """Models that come with geounet, file by name."""
    folder = Path(str(resources.files("geounet") / "models"))
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def load(model: Path | str) -> Segmenter:
    """Model from a file, or one that comes with geounet, by name.

    Parameters
    ----------
    model : path or str
        A file wins over a bundled model of the same name.

    Returns
    -------
    Segmenter
        In evaluation mode, on the CPU.

    Raises
    ------
    ModelFileError
        There is neither, or as `Segmenter.load`.
    """
    known = bundled()
    if isinstance(model, str) and model in known and not Path(model).is_file():
        return Segmenter.load(known[model])
    if not Path(model).exists():
        names = ", ".join(known) or "none"
        raise ModelFileError(f"there is no model file {model}, and no bundled model of that name; bundled: {names}.")
    return Segmenter.load(model)
