"""What the words rule out."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from safety_filter.perception.blobs import UNKNOWN_CLASS
from safety_filter.perception.words import (
    COLOURS,
    Colours,
    Meant,
    class_share,
    meant,
    not_ruled_out,
)
from safety_filter.sim.catalogue import COLOURS as CATALOGUE
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World

A, B, C = 1, 2, 3
NAMES = {0: "cube", 1: "can", 2: "coffee mug", 3: "bin"}


@pytest.mark.parametrize(
    ("text", "classes", "colours"),
    [
        ("Put the red CUBE in the bin", {0, 3}, {"red"}),
        ("stack the cubes", {0}, set()),
        ("pick up the cubed ham", set(), set()),
        ("bring me the Gray coffee mug.", {2}, {"grey"}),
        ("the violet plastic can, not the red one", {1}, {"purple"}),
        ("the redcube", set(), set()),
        ("", set(), set()),
    ],
)
def test_words_name_classes_whole_and_their_colours(text, classes, colours):
    assert meant(text, NAMES) == Meant(frozenset(classes), frozenset(colours))


def test_only_known_sightings_speak_for_or_against_a_class():
    cube = frozenset({0})
    assert class_share(cube, {UNKNOWN_CLASS: 9.0}) is None
    assert class_share(cube, {UNKNOWN_CLASS: 9.0, 0: 1.0}) == 1.0
    assert class_share(cube, {0: 1.0, 4: 3.0}) == 0.25


def painted(**rgb: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its owner: one square a track ("t1", "t2", ...)."""
    picture, owner = np.zeros((64, 256, 3), np.uint8), np.zeros((64, 256), np.int32)
    for name, colour in rgb.items():
        i = int(name[1:])
        picture[8:56, 60 * i:60 * i + 40] = colour
        owner[8:56, 60 * i:60 * i + 40] = i
    return picture, owner


def seen(**rgb: tuple[int, int, int]) -> Colours:
    colours = Colours()
    colours.look(*painted(**rgb))
    return colours


RED, GREEN, GREY = (200, 20, 25), (25, 150, 40), (128, 128, 128)
CUBE = Meant(frozenset({0}), frozenset({"red"}))


def test_another_colour_is_ruled_out_where_the_named_one_stands():
    votes = {A: {0: 5.0}, B: {0: 5.0}}
    assert not_ruled_out(CUBE, votes, seen(t1=RED, t2=GREEN), 0.1) == {A}
    # without it, what is there may be meant: light and cameras change colours
    assert not_ruled_out(CUBE, votes, seen(t1=GREEN, t2=GREY), 0.1) == {A, B}
    # no colour named, or nothing seen of it yet
    assert not_ruled_out(Meant(frozenset({0})), votes, seen(t1=RED, t2=GREEN), 0.1) == {A, B}
    assert not_ruled_out(CUBE, votes, seen(t1=RED), 0.1) == {A, B}
    assert not_ruled_out(CUBE, votes, seen(t1=RED, t2=GREEN), 0.0) == {A, B}


def test_another_class_is_ruled_out_where_the_named_one_stands():
    same = seen(t1=RED, t2=RED, t3=RED)
    votes = {A: {0: 5.0}, B: {1: 5.0}, C: {UNKNOWN_CLASS: 5.0}}
    assert not_ruled_out(CUBE, votes, same, 0.1) == {A, C}
    assert not_ruled_out(CUBE, {B: {1: 5.0}, C: {UNKNOWN_CLASS: 5.0}}, same, 0.1) == {B, C}
    assert not_ruled_out(CUBE, {A: {0: 5.0}, B: {1: 4.0, 0: 1.0}}, same, 0.1) == {A, B}
    # a cube that is mostly taken for a can is still more of a cube than a bin is
    assert not_ruled_out(CUBE, {A: {1: 9.0, 0: 1.0}, B: {3: 9.0}}, same, 0.1) == {A}
    assert not_ruled_out(CUBE, {A: {1: 999.0, 0: 1.0}, B: {3: 9.0}}, same, 0.1) == {A, B}


def test_a_first_glimpse_of_the_neighbour_is_forgotten():
    colours = seen(t1=GREEN)
    for _ in range(40):
        colours.look(*painted(t1=RED))
    share = colours.share(A, frozenset({"green"}))
    assert share is not None and share < 0.05
    colours.forget({B})
    assert colours.share(A, frozenset({"green"})) is None


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("light", [0.45, 0.7, 1.0])
def test_a_colour_in_the_shade_keeps_its_name(name: str, light: float):
    """Whatever falls on it within the catalogue's spread; colours far apart are never confused."""
    apart = {"red": {"green", "blue"}, "green": {"red", "purple", "orange"},
             "blue": {"red", "yellow", "orange"}, "yellow": {"red", "blue", "purple"},
             "purple": {"green", "yellow", "orange"}, "orange": {"green", "blue", "purple"}}
    for shift in itertools.product((-0.04, 0.04), repeat=3):
        rgb = np.clip(np.add(CATALOGUE[name], shift), 0, 1) * light * 255
        colours = seen(t1=tuple(rgb.astype(np.uint8)))
        assert colours.share(A, frozenset({name})) == 1.0
        assert colours.share(A, frozenset(apart[name])) == 0.0


def test_rendered_things_have_the_colours_of_their_names():
    """True masks in the simulator's light: the name's colour on most of what shows of a thing."""
    wrong, looked = [], 0
    world = None
    for seed in range(3000, 3012):
        scene = generate(seed)
        world = world or World(scene)
        world.reset(scene)
        picture = world.render("scene")
        for i, spec in enumerate(scene.specs):
            colour = spec.name.split()[0]
            mask = picture.seg == world.bodies[spec.name]
            mask = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            if colour not in COLOURS or mask.sum() < 60:
                continue
            looked += 1
            colours = Colours()
            colours.look(picture.rgb, np.where(mask, i + 1, 0).astype(np.int32))
            share = colours.share(i + 1, frozenset({colour}))
            if share is None or share < 0.5:
                wrong.append((seed, spec.name, share))
    assert world is not None
    world.close()
    assert looked > 30
    assert not wrong
