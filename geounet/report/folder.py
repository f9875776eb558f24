"""All that is drawn into a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from .confusion import plot_confusion
from .curves import plot_curves
from .page import write_page
from .sheets import plot_inputs, plot_scored

if TYPE_CHECKING:
    from ..training import Run


def plot_run(folder: Path, run: "Run") -> None:
    """Draw a training into a folder: curves, confusion, chips to look at, and ``report.html``, which holds them all.

    Pictures are ``curves.png``, ``confusion.png`` of validation and, if there is a test, ``confusion_test.png``;
    ``inputs.png``, what the network was shown; ``worst.png`` and ``sample.png``, validation chips with the most wrong
    pixels and some by chance; ``learning_rate.png`` and ``batch_size.png`` of what was searched for.

    Raises
    ------
    OutputExistsError, OutputError
        A file is there already, or the folder is not.
    """
    from .finders import plot_searches  # knows searches by their type, and so wakes the training

    legend = run.model.legend
    plot_curves(run.history, folder / "curves.png", legend=legend)
    plot_confusion(run.validation.confusion, run.validation.names, folder / "confusion.png")
    if run.test:
        plot_confusion(run.test.confusion, run.test.names, folder / "confusion_test.png")
    if run.examples:
        infos = {band.name: band for band in run.model.bands}
        bands = [infos[name] for name in run.examples.bands]
        for name, draw, chips in (
            ("inputs.png", plot_inputs, run.examples.inputs),
            ("worst.png", plot_scored, run.examples.worst),
            ("sample.png", plot_scored, run.examples.sampled),
        ):
            if chips:
                draw(chips, bands, legend, folder / name)
    plot_searches(run.searches, folder)
    write_page(folder, run)
