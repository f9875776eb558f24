"""The sections of a config that make up one training."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .options import Augmentation, Card, Fitting, Inference, Loss, Network, Sampling, checked

IDLE: Mapping[str, tuple[str, ...]] = {
    "sampler": ("cache", "cache_gb", "cache_folder", "ahead", "retries"),
    "training": ("tensorboard",),
    "inference": tuple(one.name for one in fields(Inference)),
    "card": tuple(one.name for one in fields(Card)),
}
"""Options that no weight depends on: a training that ran out of memory may go on with others."""


@dataclass(frozen=True)
class Sections:
    """Options of a training, each as in a config."""

    sampler: Sampling = field(default_factory=Sampling)
    model: Network = field(default_factory=Network)
    loss: Loss = field(default_factory=Loss)
    augment: Augmentation = field(default_factory=Augmentation)
    training: Fitting = field(default_factory=Fitting)
    inference: Inference = field(default_factory=Inference)
    card: Card = field(default_factory=Card)

    @classmethod
    def of(cls, **given: Any) -> "Sections":
        """Sections of which those that are None are the default.

        Raises
        ------
        ConfigError
            A value is of another kind, or out of range.
        """
        sections = cls(**{name: section for name, section in given.items() if section is not None})
        for name, section in vars(sections).items():
            checked(type(section), vars(section), f"{name}.")
        return sections

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """All options, by section."""
        return {name: asdict(section) for name, section in vars(self).items()}

    def learning(self) -> dict[str, dict[str, Any]]:
        """Options that weights depend on, as JSON gives them back."""
        kept = {
            name: {key: value for key, value in section.items() if key not in IDLE.get(name, ())}
            for name, section in self.to_dict().items()
        }
        plain: dict[str, dict[str, Any]] = json.loads(json.dumps(kept, default=str))
        return plain
