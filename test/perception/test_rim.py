"""What rests in a bin, on a plate or where they stood: unknown things that only depth shows."""

from __future__ import annotations

import numpy as np
import pytest
from looking import Bench
from perception.solids import box, cylinder, open_box
from scipy import ndimage

from safety_filter.core.wire import UNKNOWN_CLASS, Role
from safety_filter.perception.detector import Detection

PLATE, BIN, ZONE = 8, 10, 11
WHERE = np.array([0.5, 0.1, 0.0])
SUPPORTS = {"bin": (open_box(0.08, 0.06), 0.0, BIN),
            "plate": (cylinder(0.085, 0.012), 0.006, PLATE),
            "zone": (box((0.075, 0.075, 0.0005)), 0.0005, ZONE)}


class Greedy(Bench):
    """Support masks that take in what `also` names, and `grown` px around."""

    also: str = ""
    grown = 0

    def look(self, **kwargs):
        plain = self.cell.detections

        def greedy(masks):
            found = []
            for d in plain(masks):
                mask = d.mask | masks[self.also] if self.also in masks else d.mask
                if self.grown:
                    mask = ndimage.binary_dilation(mask, iterations=self.grown)
                found.append(Detection(mask, d.box, d.class_id, d.score))
            return found

        self.cell.detections = greedy
        try:
            return super().look(**kwargs)
        finally:
            del self.cell.detections


def with_support(cell, name: str) -> Greedy:
    """A bench that has looked at a bin, plate or zone for a while."""
    bench = Greedy(cell)
    shape, z, class_id = SUPPORTS[name]
    cell.put(name, shape, WHERE + [0, 0, z], 0.0, class_id)
    for _ in range(20):
        bench.look()
    return bench


def thing(cell, height: float, floor: float) -> None:
    cell.put("thing", box((0.03, 0.03, height / 2)), WHERE + [0, 0, floor + height / 2])


def obstacles(result) -> np.ndarray:
    return result.objects[result.objects["role"] == Role.OBSTACLE]


@pytest.mark.parametrize("height", [0.03, 0.06, 0.09])
@pytest.mark.parametrize("blind", [False, True])
def test_an_unknown_thing_in_a_bin_is_an_obstacle_though_the_bins_mask_holds_it(
        cell, height, blind):
    """It had the bin's colour; or the bin was overlooked, and the remembered mask took it in."""
    bench = with_support(cell, "bin")
    thing(cell, height, 0.006)
    bench.also = "thing"
    bench.look(blind=blind)
    for _ in range(10):
        result = bench.look(blind=blind)
        (only,) = obstacles(result)
        assert only["class_id"] == UNKNOWN_CLASS
        assert np.hypot(only["x"] - 0.5, only["y"] - 0.1) < 0.015
        assert only["z"] + only["sz"] == pytest.approx(0.006 + height, abs=0.006)


@pytest.mark.parametrize("name", ["bin", "plate", "zone"])
def test_a_ragged_mask_makes_no_obstacles_of_a_support(cell, name):
    """Of the table behind the far wall a bin was taken to be 3 cm wider than it is."""
    bench = Greedy(cell)
    bench.grown = 3
    shape, z, class_id = SUPPORTS[name]
    cell.put(name, shape, WHERE + [0, 0, z], 0.3, class_id)
    for _ in range(20):
        result = bench.look()
        assert len(obstacles(result)) == 0
    (support,) = result.objects
    if name != "zone":  # as high as the table
        true = 0.08 if name == "bin" else 0.085
        assert np.hypot(support["x"] - 0.5, support["y"] - 0.1) < 0.008
        assert support["sx"] == pytest.approx(true, abs=0.008)
        assert support["sy"] == pytest.approx(true, abs=0.008)


@pytest.mark.parametrize(("name", "floor", "height"), [
    ("plate", 0.012, 0.016), ("plate", 0.012, 0.030), ("zone", 0.001, 0.022)])
@pytest.mark.parametrize("also", ["", "thing"])
def test_an_unknown_thing_on_a_plate_is_no_piece_of_it(cell, name, floor, height, also):
    bench = with_support(cell, name)
    thing(cell, height, floor)
    bench.also = also
    bench.look()
    for _ in range(5):
        (only,) = obstacles(bench.look())
        assert floor + height - 0.006 < only["z"] + only["sz"] < floor + height + 0.008


@pytest.mark.parametrize("height", [0.03, 0.09])
def test_what_lies_where_a_bin_was_taken_away_is_an_obstacle_at_once(cell, height):
    """The remembered mask owned it for 4 s, though the picture looked past the bin's walls."""
    bench = with_support(cell, "bin")
    cell.things.pop("bin")
    cell.classes.pop("bin")
    cell.put("thing", box((0.02, 0.02, height / 2)), WHERE + [0.05, 0.05, height / 2])
    bench.look()
    for _ in range(5):
        result = bench.look()
        assert result.objects["role"].tolist() == [Role.OBSTACLE]


def test_a_bin_that_something_stands_before_lies_where_it_lay(cell, shapes):
    """What a mover left to be seen of it was learnt as its shape: walls came off their places."""
    bench = with_support(cell, "bin")
    for y in np.arange(-0.12, 0.10, 0.008):
        cell.put("carton", shapes["carton"], (0.55, y, 0.17), 0.0, 6)
        result = bench.look()
        (seen,) = result.objects[result.objects["class_id"] == BIN]
        assert np.hypot(seen["x"] - 0.5, seen["y"] - 0.1) < 0.008
        assert max(abs(seen["sx"] - 0.08), abs(seen["sy"] - 0.08)) < 0.004
        assert len(obstacles(result)) <= 1  # no wall of it
