"""Pictures of a training, of scores and of maps, and a page that holds them.

Drawn by matplotlib's Agg canvas through figures of their own: no window, no global state. Import it where a picture
is wanted; matplotlib takes a moment to wake.
"""

from .composites import composite
from .confusion import plot_confusion
from .curves import plot_curves
from .folder import plot_run
from .maps import plot_map
from .page import PAGE, write_page
from .sheets import plot_inputs, plot_scored

__all__ = [
    "PAGE", "composite", "plot_confusion", "plot_curves", "plot_inputs", "plot_map", "plot_run", "plot_scored",
    "write_page",
]  # fmt: skip
