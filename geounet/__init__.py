"""Class maps from georeferenced multi-band rasters.

Names are imported when they are first used, so that ``import geounet`` and ``geounet --help`` are quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
