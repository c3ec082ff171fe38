"""Head profiles: which heads point at the target, bound to the weights they were found in."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

WEIGHTS = "model.safetensors"
FARTHEST = 1  # cells, either way, that a head may look beside what it means
PAIRS = ("approach", "carry", "approach_offset", "carry_offset", "wrist", "wrist_offset")


class ProfileError(ValueError):
    """A head profile that cannot be used: what was expected, what came, what to do."""


def moved_back(maps: NDArray[np.float32], offset: tuple[int, int]) -> NDArray[np.float32]:
    """Maps (..., g, g) moved by minus `offset` cells (rows, columns); zeros come in at the edge.

    Raises: ValueError if the offset is not smaller than the map.
    """
    grid = maps.shape[-1]
    if max(map(abs, offset)) >= grid:
        raise ValueError(f"offset: expected less than the map's {grid} cells, got {offset}")
    out = np.zeros_like(maps)
    (to_y, from_y), (to_x, from_x) = (
        (slice(max(-k, 0), grid - max(k, 0)), slice(max(k, 0), grid + min(k, 0))) for k in offset)
    out[..., to_y, to_x] = maps[..., from_y, from_x]
    return out


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


def fingerprint(model: Path) -> str:
    """SHA-256 of a model's weight file, shortened to 16 hex digits."""
    return hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class HeadProfile:
    """Heads by phase, as (layer, head), and how well they pointed where they were found.

    `approach` and `carry` read the scene picture. `wrist` reads the wrist picture on the approach,
    in which the hand sees its target from above; None: nothing is read there.

    Offsets: the whole cells (rows, columns) by which a head's attention lies beside what it means.
    A token of a convolutional stem sees its neighbours' cells too, so a head may settle on the
    token next to an object; calibration measures that, `align` takes it out of the map.
    """

    weights: str  # fingerprint of the weights
    approach: tuple[int, int]
    carry: tuple[int, int]
    approach_offset: tuple[int, int] = (0, 0)
    carry_offset: tuple[int, int] = (0, 0)
    wrist: tuple[int, int] | None = None  # of the wrist picture, in approach
    wrist_offset: tuple[int, int] = (0, 0)
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Short name that travels with every map."""
        return "{}-{}.{}-{}.{}".format(self.weights[:8], *self.approach, *self.carry)

    def head(self, phase: str) -> tuple[int, int]:
        """The head for a phase, "approach" or "carry"; "wrist": that of the wrist picture.

        Raises: ProfileError if the wrist picture is not read.
        """
        if phase == "wrist":
            if self.wrist is None:
                raise ProfileError("head profile: it names no head of the wrist picture; run "
                                   "`safety-filter calibrate`")
            return self.wrist
        return self.approach if phase == "approach" else self.carry

    def align(self, maps: NDArray[np.float32], phase: str) -> NDArray[np.float32]:
        """Maps (..., g, g) of the phase's head ("wrist": that one's), moved to where it means."""
        offsets = {"approach": self.approach_offset, "carry": self.carry_offset,
                   "wrist": self.wrist_offset}
        return moved_back(maps, offsets[phase])

    def save(self, path: Path) -> None:
        """Write as YAML."""
        data = asdict(self)
        data |= {k: list(data[k]) for k in PAIRS if data[k] is not None}
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    @classmethod
    def load(cls, path: Path, model: Path) -> HeadProfile:
        """Read a profile for the weights in the folder `model`.

        Raises: ProfileError if it cannot be read or belongs to other weights.
        """
        try:
            data = yaml.safe_load(path.read_text())
            profile = cls(**(data | {k: _pair(data[k]) for k in PAIRS if data.get(k)}))
        except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
            raise ProfileError(
                f"head profile {path}: expected YAML with weights, approach, carry and their "
                f"offsets, got {error!r}; write one with `safety-filter calibrate`") from error
        offsets = profile.approach_offset, profile.carry_offset, profile.wrist_offset
        if max(abs(k) for offset in offsets for k in offset) > FARTHEST:
            raise ProfileError(
                f"head profile {path}: expected offsets of at most {FARTHEST} cell, got "
                f"{offsets}; run `safety-filter calibrate`")
        found = fingerprint(model)
        if profile.weights != found:
            raise ProfileError(
                f"head profile {path}: made for weights {profile.weights}, these are {found}; "
                "heads do not transfer between checkpoints, run `safety-filter calibrate`")
        return profile
