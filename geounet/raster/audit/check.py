"""Compare the ground of all scenes, by footprint or by content."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ..labels.region import BlockRegion, RegionLabels
from ..sampler import Pair
from ..sampler.cache import CachedLabels
from .content import repeated
from .footprint import overlapping
from .leaks import Leaks, Overlap


def audit(
    splits: Mapping[str, Sequence[Pair]],
    *,
    georeference: Literal["true", "nominal"] = "true",
    static_labels: bool = False,
) -> Leaks:
    """Which scenes share ground, and whether that ground is in two splits.

    Parameters
    ----------
    splits : mapping of str to sequence of Pair
        Scenes by split. Scenes that share a picture, but whose labels are seen in different blocks of one division
        of the ground, are not held against each other.
    georeference : {'true', 'nominal'}
        Where footprints are true, nothing is read. Where they are nominal, and for scenes without CRS or
        transform, images are read once and compared by content.
    static_labels : bool
        Whether to compare label maps by content as well, in addition to images. It finds one place on two dates, where
        labels are of a map that does not change.

    Returns
    -------
    Leaks
        Overlaps, clusters of scenes that belong in one split, and overlaps between splits.

    Raises
    ------
    SceneError, LabelError
        Pixels cannot be read.
    """
    pairs = [pair for some in splits.values() for pair in some]
    names = [name for name, some in splits.items() for _ in some]
    numbered = list(enumerate(pairs))
    placed = [(place, pair.scene.grid) for place, pair in numbered if georeference == "true" and pair.scene.grid.placed]
    found: dict[tuple[int, int], Overlap] = {}
    known = {place for place, _ in placed}
    overlaps = [*overlapping(placed)] if placed else []
    if len(known) < len(pairs):
        overlaps += [o for o in repeated(numbered, "image") if not {o.first, o.second} <= known]
    if static_labels:
        overlaps += repeated([(place, pair) for place, pair in numbered if pair.labels is not None], "labels")
    for overlap in overlaps:
        if not _apart(pairs[overlap.first], pairs[overlap.second]):
            found.setdefault((overlap.first, overlap.second), overlap)
    return Leaks(tuple(pair.scene.source for pair in pairs), tuple(names), tuple(found[key] for key in sorted(found)))


def _apart(one: Pair, two: Pair) -> bool:
    """True if the labels of two pairs are seen in different blocks of one division of the ground."""
    first, second = (
        p.labels.region if isinstance(p.labels, (RegionLabels, CachedLabels)) else None for p in (one, two)
    )
    return isinstance(first, BlockRegion) and isinstance(second, BlockRegion) and first.apart_from(second)
