"""What an examination finds, and what it measured on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

Level: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One fault, or what may be one."""

    code: str
    """Kind of fault, in kebab-case."""
    level: Level
    """``error`` spoils training or its scores; ``warning`` may; ``note`` is worth knowing."""
    about: str
    """File, band, class or split."""
    message: str
    """What was found, what was expected, and what to do."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Figures behind it, as plain values."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the gravest first, and facts of the data whether they are faulty or not."""

    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]
    """``splits``: scenes, pixels and class shares of each; ``rules``: how far one band alone goes for each class;
    ``registration``: where labels fit the images best."""

    @classmethod
    def of(cls, findings: Iterable[Finding], facts: Mapping[str, Any]) -> "Diagnosis":
        """Findings by level; within one, in the order they were found."""
        return cls(tuple(sorted(findings, key=lambda finding: get_args(Level).index(finding.level))), facts)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that spoil training or its scores."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"findings": [asdict(finding) for finding in self.findings], "facts": dict(self.facts)}
