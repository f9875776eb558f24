"""Straight edges that are about to change their reference system."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

LONGEST = 1000.0
"""Metres: the chord of an arc of a kilometre is off by 2 cm."""
DEGREE = 111_195.0
"""Metres, along a meridian of the mean sphere."""


def densified(geometries: NDArray[np.object_], crs: Any) -> NDArray[np.object_]:
    """Polygons with corners in between on each edge longer than `LONGEST`, so that it may bend.

    GEOS does the same, but checks validity on the way, which takes minutes for a polygon of a million corners.

    Parameters
    ----------
    geometries : array of Polygon and MultiPolygon
    crs : pyproj.CRS
        Of the geometries.
    """
    if not len(geometries):
        return geometries
    kind, xy, (rings, *others) = shapely.to_ragged_array(geometries)
    longest = LONGEST / (DEGREE if crs.is_geographic else crs.axis_info[0].unit_conversion_factor)
    way = np.diff(xy, axis=0, append=xy[-1:])
    pieces = np.maximum(np.ceil(np.hypot(*way.T) / longest), 1).astype(np.int64)
    pieces[rings[1:] - 1] = 1  # from the end of a ring to the start of the next is no edge
    begin = np.concatenate([[0], np.cumsum(pieces)])
    edge = np.repeat(np.arange(len(xy)), pieces)
    part = (np.arange(len(edge)) - begin[edge]) / pieces[edge]
    found: NDArray[np.object_] = shapely.from_ragged_array(
        kind, xy[edge] + way[edge] * part[:, None], (begin[rings], *others)
    )
    return found
