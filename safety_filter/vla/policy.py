"""The policy as its users see it: pictures, proprioception and words in, a chunk out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast

from safety_filter.sim.catalogue import COLOURS, DESTINATIONS, GRASPABLE
from safety_filter.vla.modeling import VlaModel, load_model
from safety_filter.vla.profile import WEIGHTS, HeadProfile
from safety_filter.vla.tap import AttentionTap
from safety_filter.vla.words import UNKNOWN

MAX_OPENING = 0.08
SHIPPED = Path(__file__).parent.parent / "models" / "vla"
PROFILE = "profile.yaml"
MODEL_FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")


class PolicyError(ValueError):
    """An input the policy cannot act on: what was expected, what came, what to do."""


@dataclass(frozen=True)
class PolicyOutput:
    """One chunk. Action k is meant for the time `stamp + k * dt`.

    twists (H, 6) tool twists in base, m/s and rad/s; openings (H,) of the gripper in m;
    attention (g, g) float32 over the scene picture, shares that sum to at most 1; None without a
    profile;
    present: probability that the picture shows what the instruction names;
    wrist_attention: like attention, over the wrist picture, on the approach.
    """

    twists: NDArray[np.float64]
    openings: NDArray[np.float64]
    dt: float
    stamp: float
    attention: NDArray[np.float32] | None
    profile_id: str
    present: float
    phase: str
    wrist_attention: NDArray[np.float32] | None = None


def pack_proprioception(position: NDArray[np.float64], rotation: NDArray[np.float64],
                        opening: float) -> NDArray[np.float32]:
    """Tool position (3,) m, rotation matrix (3, 3) in base and gripper opening (m) as (13,)."""
    return np.concatenate([position, np.ravel(rotation), [opening]]).astype(np.float32)


class Policy:
    """A model with its tokenizer and, with a profile, its attention tap."""

    def __init__(self, model: VlaModel, tokenizer: PreTrainedTokenizerFast,
                 profile: HeadProfile | None = None, close_at: float = 0.4) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.profile = profile
        self.close_at = close_at
        self._tap: AttentionTap | None = None
        self._wrist_tap: AttentionTap | None = None
        if profile is not None:
            self._tap = AttentionTap(model, [profile.approach, profile.carry])
            self._tap.attach()
            if profile.wrist is not None:
                self._wrist_tap = AttentionTap(model, [profile.wrist], "wrist")
                self._wrist_tap.attach()

    @classmethod
    def load(cls, folder: Path = SHIPPED, profile: Path | None = None) -> Policy:
        """Load weights from `folder`, with the head profile at `profile` if one is given.

        Raises: PolicyError for missing or damaged files, ProfileError for a profile of other
        weights.
        """
        for name in MODEL_FILES:
            if not (folder / name).is_file():
                raise PolicyError(f"policy: {folder / name} is missing; expected a folder written "
                                  "by `safety-filter train vla`")
        try:
            model = load_model(folder)
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        except (SafetensorError, json.JSONDecodeError, RuntimeError, OSError, ValueError) as error:
            raise PolicyError(f"policy: {folder} cannot be read: {error}; restore it or train "
                              "again with `safety-filter train vla`") from error
        loaded = None if profile is None else HeadProfile.load(profile, folder)
        return cls(model, tokenizer, loaded)

    def check_instruction(self, instruction: str) -> None:
        """Raises PolicyError unless every word is known and an object and a place are named."""
        words = self.tokenizer.tokenize(instruction)
        raw = instruction.lower().split()
        known = set(self.tokenizer.get_vocab())
        strange = [w for w in raw if w not in known]
        wanted = (f"expected a sentence such as 'put the red cube on the plate' with a colour of "
                  f"{sorted(COLOURS)}, an object of {sorted(GRASPABLE)} and a place of "
                  f"{sorted(DESTINATIONS)}")
        if strange or UNKNOWN in words:
            raise PolicyError(f"instruction {instruction!r}: unknown words {strange}; {wanted}")
        if not (set(words) & set(GRASPABLE) and set(words) & set(DESTINATIONS)):
            raise PolicyError(f"instruction {instruction!r} names no object or no place; {wanted}")
        if len(words) > self.model.config.max_words:
            raise PolicyError(f"instruction: expected at most {self.model.config.max_words} "
                              f"words, got {len(words)}; {wanted}")

    @torch.inference_mode()
    def act(self, scene: NDArray[np.uint8], wrist: NDArray[np.uint8],
            proprio: NDArray[np.float32], instruction: str, stamp: float) -> PolicyOutput:
        """The chunk for a scene picture and a wrist picture (H, W, 3) uint8 RGB, square, taken at
        `stamp`; proprio (13,) as `pack_proprioception` makes it, of the same time.

        Raises: PolicyError for pictures, proprioception or instructions it cannot use, and where
        the model's answer is not finite: a gripper that is not told to close would open.
        """
        self.check_instruction(instruction)
        config = self.model.config
        if np.shape(proprio) != (13,) or not np.all(np.isfinite(proprio)):
            raise PolicyError(f"proprioception: expected 13 finite numbers, got {proprio!r}")
        inputs = (_picture(scene, config.scene_size, "scene picture"),
                  _picture(wrist, config.wrist_size, "wrist picture"),
                  torch.from_numpy(np.asarray(proprio, np.float32))[None],
                  self.tokenizer(instruction, return_tensors="pt")["input_ids"])
        out = self.model(*inputs)
        if not all(torch.isfinite(x).all() for x in (out.twists, out.close, out.present)):
            raise PolicyError("the model's answer: expected finite numbers, got others; look at "
                              "the weights, or at what they were converted to")
        scale = np.array([config.linear_scale] * 3 + [config.angular_scale] * 3)
        close = torch.sigmoid(out.close[0]).numpy() > self.close_at
        phase = "carry" if close[0] and proprio[12] < 0.074 else "approach"
        attention = wrist_attention = None
        if self._tap is not None and self.profile is not None:
            attention = self.profile.align(
                self._tap.maps()[0, 0 if phase == "approach" else 1], phase)
            if self._wrist_tap is not None and phase == "approach":
                wrist_attention = self.profile.align(self._wrist_tap.maps()[0, 0], "wrist")
        return PolicyOutput(
            out.twists[0].double().numpy() * scale, np.where(close, 0.0, MAX_OPENING),
            float(config.dt), stamp, attention, self.profile.id if self.profile else "",
            float(torch.sigmoid(out.present[0])), phase, wrist_attention)


def _picture(picture: NDArray[np.uint8], size: int, what: str) -> torch.Tensor:
    shape, kind = np.shape(picture), getattr(picture, "dtype", None)
    if len(shape) != 3 or shape[2] != 3 or kind != np.uint8 or shape[0] != shape[1] \
            or shape[0] < size:
        raise PolicyError(f"{what}: expected a square RGB picture (H, H, 3) of uint8 with "
                          f"H >= {size}, got {shape} of {kind}; crop or rescale the camera")
    if shape[0] != size:
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
