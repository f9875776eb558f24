"""Share out units between splits, so that each class stands in each split in the same proportion."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import SplitError

Counts = NDArray[np.float64]
Places = NDArray[np.int64]

MISSING = 1e3
"""What a class without a pixel in a split costs: more than any lack of proportion."""
NOTHING = 1e-12
"""Part of a class below which a split holds none of it: what rounding leaves of a pixel that went elsewhere."""
WORK = 2_000
"""Units looked at in all starts of a search together; one start where there are more."""
STARTS = 32
"""Starts of a search at most: few units have many poor local optima, and cost little."""
SWEEPS = 8
"""Times a search goes over all units before it is content."""
PARTNERS = 3
"""Units that each unit tries to change places with in a sweep, drawn by chance."""


def assign(
    weights: NDArray[np.generic],
    shares: Mapping[str, float],
    rng: np.random.Generator,
    *,
    groups: Sequence[Hashable] | None = None,
) -> Places:
    """Split of each unit, its place in `shares`, (n,): groups whole, and every class in its share in every split.

    Groups are placed one by one, largest first, where they are needed most, as in stratified group sampling [1]_;
    then they move for as long as that brings the shares nearer. The best of several starts is kept.

    Parameters
    ----------
    weights : array (n, K)
        Pixels or area of each class in each unit.
    shares : mapping of str to float
        Part of each split, positive, with a sum of 1.
    rng : numpy.random.Generator
        The only source of chance.
    groups : sequence of n hashables, optional
        Units of one group stay together; by default each stands alone.

    Raises
    ------
    SplitError
        The shares are not positive or do not add up to 1, or there are fewer groups than splits.

    References
    ----------
    .. [1] K. Sechidis, G. Tsoumakas, I. Vlahavas, On the stratification of multi-label data, ECML PKDD 2011.
    """
    names: dict[Hashable, int] = {}
    group = np.array(
        [names.setdefault(g, len(names)) for g in (range(len(weights)) if groups is None else groups)], int
    )
    if len(names) < len(shares):
        raise SplitError(
            f"{len(names)} group{'s' * (len(names) != 1)} of scenes cannot fill the {len(shares)} splits {', '.join(shares)}: "
            "give more scenes, or split the ground by blocks."
        )
    total = np.zeros((len(names), np.shape(weights)[1]))
    np.add.at(total, group, np.asarray(weights, float))
    found: Places = search(total, np.arange(len(names))[:, None], shares, rng)[group]
    return found


def folds(
    weights: NDArray[np.generic], count: int, rng: np.random.Generator, *, groups: Sequence[Hashable] | None = None
) -> Places:
    """Fold of each unit, 0 … `count` - 1, (n,): groups whole, and every class in all folds alike.

    Raises
    ------
    SplitError
        There are fewer groups than folds.
    """
    return assign(weights, dict.fromkeys(map(str, range(count)), 1 / count), rng, groups=groups)


def roles(count: int, fold: int) -> dict[str, list[int]]:
    """Folds of each split in round `fold`: that one to validate with, the others to train with.

    Raises
    ------
    SplitError
        There is one fold alone, or none of that number.

    Examples
    --------
    >>> roles(4, 3)
    {'train': [0, 1, 2], 'validate': [3]}
    """
    if count < 2 or not 0 <= fold < count:
        raise SplitError(
            f"there must be at least 2 folds, and fold is one of them, from 0 to folds - 1; found {fold} of {count}."
        )
    return {"train": [other for other in range(count) if other != fold], "validate": [fold]}


def search(
    weights: NDArray[np.generic], members: Places, shares: Mapping[str, float], rng: np.random.Generator
) -> Places:
    """Split of each unit, its place in `shares`, (n,), where weights may rest on several units at once.

    A weight counts for a split when all of its units are in it, and is lost when they are not: so pixels near the edges
    of blocks are lost to a buffer unless the blocks they are near are of one split, and the search keeps such
    blocks together where that costs no balance.

    Parameters
    ----------
    weights : array (m, K)
        Pixels or area of each class.
    members : array (m, j)
        The units each rests on, numbered from 0 without a gap, with repeats; its own first.
    shares, rng
        As `assign` has them.

    Raises
    ------
    SplitError
        The shares are not positive or do not add up to 1.
    """
    if not shares or min(shares.values()) <= 0 or not np.isclose(sum(shares.values()), 1.0, atol=1e-6):
        said = ", ".join(f"{name}: {share:g}" for name, share in shares.items())
        raise SplitError(f"the shares of the splits must be positive and add up to 1; found {said or 'none'}.")
    problem = _Problem.of(np.asarray(weights, float), np.asarray(members, int), np.array(list(shares.values())))
    starts = int(np.clip(WORK // max(problem.units, 1), 1, STARTS))
    found = [problem.improve(problem.greedy(rng), rng) for _ in range(starts)]
    costs = [problem.cost(problem.held(splits[problem.members])) for splits in found]
    return found[int(np.argmin(costs))]


@dataclass(frozen=True, eq=False)
class _Problem:
    """Weights to be shared out."""

    parts: Counts
    """Part of each class's total, and of all, that each weight is, (m, K + 1)."""
    members: Places
    shares: Counts
    """(S,)."""
    own: Counts
    """What rests on each unit first, (n, K + 1)."""
    resting: list[Places] = field(repr=False)
    """Weights that rest on each unit, n lists."""

    @classmethod
    def of(cls, weights: Counts, members: Places, shares: Counts) -> "_Problem":
        weights = np.column_stack([weights, weights.sum(axis=1)])
        total = weights.sum(axis=0)
        parts = weights[:, total > 0] / total[total > 0]
        units = int(members.max(initial=-1)) + 1
        own = np.zeros((units, parts.shape[1]))
        np.add.at(own, members[:, 0], parts)
        pairs = np.unique(
            np.column_stack([members.ravel(), np.repeat(np.arange(len(members)), members.shape[1])]), axis=0
        )
        return cls(
            parts, members, shares, own, np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, units)))
        )

    @property
    def units(self) -> int:
        return len(self.own)

    def cost(self, held: Counts) -> Counts:
        """How far the parts held by the splits, (..., S, K + 1), are from their shares: χ², and classes they lack."""
        shares = self.shares[:, None]
        off: Counts = ((held - shares) ** 2 / shares + MISSING * (held < NOTHING)).sum(axis=(-2, -1))
        return off

    def held(self, at: Places, which: Places | slice = slice(None)) -> Counts:
        """Parts that each split holds of some weights, (..., S, K + 1), whose units are in the splits `at`, (..., w, j)."""
        whole = (at == at[..., :1]).all(axis=-1)
        split = np.where(whole, at[..., 0], -1)
        found: Counts = (split[..., None, :] == np.arange(len(self.shares))[:, None]) @ self.parts[which]
        return found

    def greedy(self, rng: np.random.Generator) -> Places:
        """Each unit where it is needed most, largest first."""
        size = self.own.max(axis=1, initial=0.0) * rng.uniform(0.5, 1.0, self.units)  # chance, so that starts differ
        splits = rng.choice(len(self.shares), self.units, p=self.shares)  # for units that nothing rests on first
        held = np.zeros((len(self.shares), self.parts.shape[1]))
        for unit in np.argsort(-size, kind="stable"):
            if not size[unit]:
                break
            splits[unit] = np.argmin(self.cost(self._moved(held, self.own[unit])))
            held[splits[unit]] += self.own[unit]
        return splits

    def improve(self, splits: Places, rng: np.random.Generator) -> Places:
        """Move units, or let two change places, for as long as that brings the parts nearer to the shares."""
        splits = splits.copy()
        held = self.held(splits[self.members])
        for _ in range(SWEEPS):
            before = self.cost(held)
            for unit in rng.permutation(self.units):
                held = self._best(splits, held, [unit], np.arange(len(self.shares))[:, None])
                for other in rng.integers(self.units, size=PARTNERS):
                    if splits[other] != splits[unit]:
                        held = self._best(splits, held, [unit, other], splits[[[other, unit]]])
            if self.cost(held) >= before - 1e-9:
                break
        return splits

    def _best(self, splits: Places, held: Counts, units: list[int], options: Places) -> Counts:
        """Give some units the best of several options, (O, units), in place; what the splits hold then."""
        which = self.resting[units[0]]
        if len(units) == 2:
            which = np.union1d(which, self.resting[units[1]])
        members = self.members[which]
        now = splits[members]
        then = np.broadcast_to(now, (len(options), *now.shape)).copy()
        for unit, chosen in zip(units, options.T, strict=True):
            np.copyto(then, chosen[:, None, None], where=members == unit)
        found: Counts = held + self.held(then, which) - self.held(now, which)
        costs = self.cost(found)
        best = int(np.argmin(costs))
        if costs[best] >= self.cost(held) - 1e-9:
            return held
        splits[units] = options[best]
        held[:] = found[best]
        return held

    def _moved(self, held: Counts, part: Counts) -> Counts:
        """Parts held when each split in turn got one more, (S, S, K + 1)."""
        moved: Counts = held + np.eye(len(self.shares))[:, :, None] * part
        return moved
