"""Trace the classes of a mask into polygons, and write them.

Boundaries are followed between pixels and kept as whole pixel corners until the very end. Areas therefore add
up to those of the pixels, and neighbours share every corner: the classes form a coverage.
"""

from .files import check_vector as check_vector
from .polygons import Polygons as Polygons
from .polygons import polygonize as polygonize
