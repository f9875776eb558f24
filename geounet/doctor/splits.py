"""Ground that two splits share, and groups that lie in two."""

from collections import defaultdict
from collections.abc import Iterator

from ..config import LoadedConfig
from ..raster.audit import audit
from ..raster.labels.region import RegionLabels
from .cases import Cases
from .findings import Finding


def leaks(loaded: LoadedConfig, cases: Cases) -> Iterator[Finding]:
    """Scenes of two splits that share ground."""
    scenes = loaded.config.scenes
    if scenes is None or len(cases.splits) < 2:
        return
    found = audit(
        {split: [case.pair for case in cases.of(split)] for split in cases.splits}, georeference=scenes.georeference
    )
    for overlap, sentence in zip(found.straddling, found.sentences(), strict=False):
        first, second = overlap.first, overlap.second
        yield Finding(
            "leak", "error" if scenes.leaks != "allow" else "note", found.scenes[second],
            f"{sentence} Scores on it will be too good: keep both in one split (give them one group), or divide the ground by "
            "blocks.",
            {
                "first": found.scenes[first], "second": found.scenes[second],
                "splits": [found.splits[first], found.splits[second]], "share": overlap.share,
                "evidence": overlap.evidence, "area_m2": overlap.area_m2,
                "shift": None if overlap.shift is None else list(overlap.shift),
            },
        )  # fmt: skip


def straddling(cases: Cases) -> Iterator[Finding]:
    """Groups with scenes in two splits; blocks divide a scene's ground, and its group with it."""
    groups: dict[str, set[str]] = defaultdict(set)
    for case in cases.all:
        region = isinstance(case.pair.labels, RegionLabels) and hasattr(case.pair.labels.region, "ground")
        if case.pair.group and not region:
            groups[case.pair.group].add(case.split)
    for group, splits in groups.items():
        if len(splits) > 1:
            named = [split for split in cases.splits if split in splits]
            yield Finding(
                "group-straddles", "error", group,
                f"The scenes of this group are in {' and '.join(named)}, though a group shares ground or a date. Keep it in "
                "one split, or let the section split divide (by: group).",
                {"group": group, "splits": named},
            )  # fmt: skip
