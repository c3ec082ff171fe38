"""Head profiles: which heads point at the target, bound to the weights they were found in."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

WEIGHTS = "model.safetensors"
PHASES = ("approach", "carry")


class ProfileError(ValueError):
    """A head profile that cannot be used: what was expected, what came, what to do."""


def fingerprint(model: Path) -> str:
    """SHA-256 of a model's weight file, shortened to 16 hex digits."""
    return hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class HeadProfile:
    """Heads by phase, as (layer, head), and how well they pointed where they were found."""

    weights: str  # fingerprint of the weights
    approach: tuple[int, int]
    carry: tuple[int, int]
    camera: str = "scene"
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Short name that travels with every map."""
        return "{}-{}.{}-{}.{}".format(self.weights[:8], *self.approach, *self.carry)

    def head(self, phase: str) -> tuple[int, int]:
        """The head for a phase, one of PHASES."""
        return self.approach if phase == "approach" else self.carry

    def save(self, path: Path) -> None:
        """Write as YAML."""
        data = asdict(self) | {"approach": list(self.approach), "carry": list(self.carry)}
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    @classmethod
    def load(cls, path: Path, model: Path) -> HeadProfile:
        """Read a profile for the weights in the folder `model`.

        Raises: ProfileError if it cannot be read or belongs to other weights.
        """
        try:
            data = yaml.safe_load(path.read_text())
            profile = cls(**(data | {k: tuple(int(v) for v in data[k]) for k in PHASES}))
        except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
            raise ProfileError(
                f"head profile {path}: expected YAML with weights, approach and carry, got "
                f"{error!r}; write one with `safety-filter calibrate`") from error
        found = fingerprint(model)
        if profile.weights != found:
            raise ProfileError(
                f"head profile {path}: made for weights {profile.weights}, these are {found}; "
                "heads do not transfer between checkpoints, run `safety-filter calibrate`")
        return profile
