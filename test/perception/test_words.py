"""What the words rule out."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from safety_filter.perception.detector import Detection
from safety_filter.perception.words import (
    COLOURS,
    Classes,
    Colours,
    Meant,
    fit_of,
    may_be_meant,
    meant,
)
from safety_filter.sim.catalogue import COLOURS as CATALOGUE
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World

A, B, C = 1, 2, 3
VOCABULARY = {0: "cube", 1: "can", 2: "coffee mug", 3: "bin", 4: "mug"}


def a(*kinds: tuple[set[int], set[str]]) -> Meant:
    """What words mean that name these classes with these colours."""
    return Meant(frozenset((frozenset(c), frozenset(k)) for c, k in kinds))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Put the red CUBE in the bin", [({0}, {"red"}), ({3}, set())]),
        ("stack the cubes", [({0}, set())]),
        ("pick up the cubed ham", []),
        ("bring me the Gray coffee mug.", [({2, 4}, {"grey"})]),
        ("the violet plastic can, not the red one", [({1}, {"purple"})]),
        ("the red cube beside the blue can", [({0}, {"red"}), ({1}, {"blue"})]),
        ("Can you bring the red cube or a green cube?", [({0}, {"red", "green"})]),
        ("the redcube", []),
        ("", []),
    ],
)
def test_words_name_classes_whole_and_their_colours(text, kinds):
    assert meant(text, VOCABULARY) == a(*kinds)


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
CUBE = a(({0}, {"red"}))
NAMES, SURE = 4, 0.75


def like(**scores: tuple[float, ...]) -> Classes:
    """Classes of "t1", "t2", ..., each a score of every class, seen in one picture."""
    classes = Classes()
    owner = np.zeros((8, 32), np.int32)
    detections = []
    for name, likeness in scores.items():
        i = int(name[1:])
        owner[:, 8 * i:8 * i + 4] = i
        detections.append(Detection(owner == i, np.zeros(4, np.float32), int(np.argmax(likeness)),
                                    max(likeness), np.array(likeness, np.float32)))
    classes.look(detections, owner, NAMES, {A, B, C}, SURE)
    return classes


def named(words: Meant, classes: Classes, colours: Colours, least: float = 0.5,
          proven: dict[int, float] | None = None) -> set[int]:
    return may_be_meant(words, [A, B, C], classes, colours, least, proven or {})


CUBES = like(t1=(0.9, 0, 0, 0), t2=(0.9, 0, 0, 0), t3=(0.9, 0, 0, 0))


def test_another_colour_is_ruled_out_even_where_the_named_one_does_not_show():
    three = seen(t1=RED, t2=GREEN, t3=GREY)
    assert named(CUBE, CUBES, three) == {A}
    # what is meant stands behind something: what shows is something else
    assert named(CUBE, CUBES, seen(t1=GREEN, t2=GREEN, t3=GREY)) == set()
    # no colour named, or words do not matter
    assert named(a(({0}, set())), CUBES, three) == {A, B, C}
    assert named(CUBE, CUBES, three, 0.0) == {A, B, C}


def test_another_class_is_ruled_out_even_where_the_named_one_does_not_show():
    same = seen(t1=RED, t2=RED, t3=RED)
    # nobody has found C, so it may be anything; no class named, so all may be meant
    assert named(CUBE, like(t1=(0, 0.9, 0, 0), t2=(0, 0.9, 0.01, 0)), same) == {C}
    assert named(Meant(), like(t1=(0.9, 0, 0, 0), t2=(0, 0.9, 0, 0)), same) == {A, B, C}


def test_what_nobody_has_found_is_not_meant_where_something_clearly_is():
    same = seen(t1=RED, t2=RED, t3=RED)
    assert named(CUBE, like(t1=(0.9, 0, 0, 0), t2=(0, 0.9, 0, 0)), same) == {A}
    assert named(CUBE, CUBES, seen(t1=RED)) == {A}
    # what has something of a cube only is not clearly one: that nobody has found may be it
    assert named(CUBE, like(t1=(0.4, 0.6, 0, 0), t2=(0, 0.9, 0, 0)), same) == {C}
    assert named(CUBE, like(t1=(0.9, 0, 0, 0), t2=(0, 0.9, 0, 0)), same, 0.0) == {A, B, C}


def test_what_is_taken_for_another_class_may_be_meant_until_something_fits_better():
    same = seen(t1=RED, t2=RED, t3=RED)
    mistaken = like(t1=(0.4, 0.6, 0, 0), t2=(0, 0.9, 0, 0), t3=(0, 0, 0, 0.9))
    assert named(CUBE, mistaken, same) == {A}
    better = like(t1=(0.4, 0.6, 0, 0), t2=(0.9, 0, 0, 0), t3=(0, 0, 0, 0.9))
    assert named(CUBE, better, same) == {B}
    # a third of a cube is what a brick has that the hand half covers
    assert named(CUBE, like(t1=(0.3, 0.7, 0, 0), t2=(0, 0.9, 0, 0)), same) == {C}
    # a cube of another colour does not fit better: the words mean one thing that has both
    assert named(CUBE, better, seen(t1=RED, t2=GREEN, t3=RED)) == {A}


def test_what_has_proven_to_fit_counts_as_it_did_then_whatever_it_looks_like_now():
    """Toppled, a block looks like a brick; what looks a little like a block is none."""
    same = seen(t1=RED, t2=RED, t3=RED)
    now = like(t1=(0.05, 0.9, 0, 0), t2=(0.4, 0.6, 0, 0))
    assert named(CUBE, now, same) == {C}
    assert named(CUBE, now, same, proven={A: 0.8}) == {A}
    assert named(CUBE, CUBES, same, proven={A: 0.8}) == {A, B, C}


@pytest.mark.parametrize(
    ("words", "known", "possible", "clear"),
    [
        (CUBE, True, True, True),
        (a(({1}, {"red"})), True, False, False),
        (a(({0}, {"green"})), True, False, False),
        (a(({1}, {"red"}), ({0}, {"green"})), True, False, False),  # not a red one of those
        (a(({1}, {"green"}), ({0}, {"red"})), True, True, True),
        (Meant(), True, True, False),  # words that say nothing prove nothing
    ],
)
def test_how_well_a_thing_fits(words, known, possible, clear):
    fit = fit_of(words, A, CUBES, seen(t1=RED))
    assert (fit.known, fit.possible, fit.clear) == (known, possible, clear)


def test_what_the_detector_never_found_fits_as_far_as_is_known():
    fit = fit_of(CUBE, A, Classes(), seen(t1=RED))
    assert fit.possible and not fit.known and not fit.clear


def glimpses(classes: Classes, columns: int, class_id: int, times: int) -> None:
    """Show track A, `columns` of it, as a thing of a class for sure."""
    owner = np.zeros((8, 8), np.int32)
    owner[:, :columns] = A
    likeness = np.eye(NAMES, dtype=np.float32)[class_id]
    for _ in range(times):
        classes.look([Detection(owner == A, np.zeros(4, np.float32), class_id, 1.0, likeness)],
                     owner, NAMES, {A}, SURE)


def test_what_has_only_a_little_of_the_class_is_something_else():
    """A brick of the cube's colour is no cube, though the cube does not show."""
    brick = like(t1=(0.11, 0.85, 0, 0), t2=(0, 0.9, 0, 0), t3=(0, 0, 0, 0.9))
    assert named(CUBE, brick, seen(t1=RED, t2=RED, t3=RED)) == set()


@pytest.mark.parametrize(("before", "after"), [(0, 30), (30, 0), (15, 15)])
def test_a_glimpse_says_less_of_a_class_than_a_good_view(before: int, after: int):
    """What comes before the best view counts no more than what comes after it."""
    classes = Classes()
    glimpses(classes, 1, 1, before)
    glimpses(classes, 6, 0, 3)
    glimpses(classes, 1, 1, after)
    share = classes.share(A, frozenset({0}))
    assert share is not None and share > 0.7


def test_what_was_seen_for_long_is_not_overturned_by_a_few_seconds():
    """Squeezed by the hand or toppled, a thing looks like another for a while; it is none."""
    classes = Classes()
    glimpses(classes, 6, 0, 150)
    glimpses(classes, 6, 1, 60)
    share = classes.share(A, frozenset({0}))
    assert share is not None and share > 0.6


def test_what_a_thing_looks_like_may_change_and_ends_with_it():
    classes = Classes()
    glimpses(classes, 6, 0, 10)
    glimpses(classes, 6, 1, 200)
    share = classes.share(A, frozenset({1}))
    assert share is not None and share > 0.95
    nothing = np.zeros((8, 8), np.int32)  # a mask that is on no track says nothing
    classes.look([Detection(nothing == 0, np.zeros(4, np.float32), 0, 1.0)], nothing, NAMES,
                 {A}, SURE)
    assert classes.share(A, frozenset({1})) == share
    classes.forget({B})
    assert classes.share(A, frozenset({1})) is None


def test_a_detector_that_names_one_class_only_is_taken_at_its_word():
    owner = np.full((4, 4), A, np.int32)
    classes = Classes()
    classes.look([Detection(owner == A, np.zeros(4, np.float32), 2, 0.6)], owner, NAMES,
                 {A}, SURE)
    assert classes.share(A, frozenset({2})) == 1.0


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


def test_a_piece_of_what_was_never_seen_whole_says_nothing_unless_the_detector_is_sure():
    owner = np.full((8, 8), A, np.int32)

    def after(score: float, whole: set[int]) -> float | None:
        classes = Classes()
        found = Detection(owner == A, np.zeros(4, np.float32), 1, score)
        classes.look([found], owner, NAMES, whole, SURE)
        return classes.share(A, frozenset({0}))

    assert after(0.54, set()) is None  # a piece of a cube is easily taken for a brick
    assert after(0.9, set()) == 0.0
    assert after(0.54, {A}) == 0.0
