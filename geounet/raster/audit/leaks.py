"""What an audit finds: scenes that share ground, the groups they form, and the splits they straddle."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two scenes that share ground."""

    first: int
    """Place of a scene in ``Leaks.scenes``."""
    second: int
    """Place of the other, further on."""
    share: float
    """Part of the smaller of the two that they share, 0 to 1."""
    evidence: Literal["footprint", "image", "labels"]
    """Whether footprints meet on Earth, or the same pixels were found in both images or both label maps."""
    area_m2: float | None = None
    """Shared ground; None where it is known by its pixels alone."""
    shift: tuple[int, int] | None = None
    """Rows and columns at which the second's first pixel lies in the first; None for footprints."""


@dataclass(frozen=True)
class Leaks:
    """Scenes that share ground."""

    scenes: tuple[str, ...]
    """What they are called, split by split."""
    splits: tuple[str, ...]
    """Split of each scene."""
    overlaps: tuple[Overlap, ...]
    """By place of the first, then of the second."""

    @property
    def straddling(self) -> tuple[Overlap, ...]:
        """Overlaps between scenes of two splits: what a model is tested on, it may have seen."""
        return tuple(o for o in self.overlaps if self.splits[o.first] != self.splits[o.second])

    @cached_property
    def clusters(self) -> tuple[tuple[int, ...], ...]:
        """Places of scenes that share ground, directly or through others, and so should be in one split."""
        root = list(range(len(self.scenes)))

        def find(place: int) -> int:
            while root[place] != place:
                root[place] = place = root[root[place]]
            return place

        for overlap in self.overlaps:
            one, two = sorted((find(overlap.first), find(overlap.second)))
            root[two] = one
        together = defaultdict(list)
        for place in range(len(root)):
            together[find(place)].append(place)
        return tuple(tuple(places) for places in together.values() if len(places) > 1)

    @property
    def groups(self) -> tuple[str, ...]:
        """A group for each scene, to split by: the first scene of its cluster, or itself."""
        names = list(self.scenes)
        for places in self.clusters:
            for place in places:
                names[place] = self.scenes[places[0]]
        return tuple(names)

    def sentences(self) -> Iterator[str]:
        """What was found, for a person: one line an overlap between splits, then what to do."""
        crossing = self.straddling
        for overlap in crossing:
            first, second = overlap.first, overlap.second
            ground = f" ({overlap.area_m2 / 1e6:.3g} km²)" if overlap.area_m2 is not None else ""
            yield (
                f"{self.scenes[first]} ({self.splits[first]}) and {self.scenes[second]} ({self.splits[second]}) share "
                f"{overlap.share:.1%} of the smaller{ground}, by {_EVIDENCE[overlap.evidence]}."
            )
        if crossing:
            many = len(crossing) > 1
            yield (
                f"{len(crossing)} pair{'s' * many} of scenes share{'s' * (not many)} ground across splits, so scores will be "
                "too good: keep scenes that share ground in one split (split by group), or split by block."
            )


_EVIDENCE = {"footprint": "their footprints", "image": "the same pixels", "labels": "the same label map"}
