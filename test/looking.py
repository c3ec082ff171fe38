"""A perception that looks at the analytic cell: masks given, no network, a robot out of view."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from safety_filter.perception.detector import Detection
from safety_filter.perception.params import TABLE
from safety_filter.perception.pipeline import Perception

NAMES = ["cube", "block", "can", "ball", "brick", "bottle", "carton", "duck", "plate", "tray",
         "bin", "zone"]
DT = 1 / 15
RGB = np.zeros((256, 256, 3), np.uint8)
PAINT = {"cube": (200, 20, 25), "cube too": (200, 20, 25), "can": (25, 60, 200)}
Q = np.zeros(7)


@dataclass
class GivenMasks:
    """A detector that returns what it is told."""

    names: list[str] = field(default_factory=lambda: NAMES)
    found: list[Detection] = field(default_factory=list)

    def detect(self, rgb, score_min):
        return [d for d in self.found if d.score > score_min]


@dataclass
class View:
    mask: np.ndarray
    t_base_tool: np.ndarray


class NoRobot:
    """A robot that is out of view, with its tool where it is put."""

    tool = np.eye(4)

    def view(self, depth, q, opening, k, t_base_cam):
        return View(np.zeros(depth.shape, bool), self.tool.copy())


class Bench:
    """A perception that looks at a cell."""

    def __init__(self, cell, **changes: object) -> None:
        self.cell, self.robot, self.time = cell, NoRobot(), 0.0
        self.rgb = RGB.copy()
        self.perception = Perception(TABLE.validate(changes), GivenMasks(), self.robot)

    def look(self, opening: float = 0.08, blind: bool = False, attention=None,
             wrist_attention=None):
        self.time += DT
        depth, masks = self.cell.picture()
        self.perception.detector.found = [] if blind else self.cell.detections(masks)
        for name, mask in masks.items():
            self.rgb[mask] = PAINT.get(name, 0)
        return self.perception.update(self.time, self.rgb, depth, self.cell.k, self.cell.pose, Q,
                                      opening, attention, wrist_attention)
