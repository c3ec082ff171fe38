"""What can stand on the table: shapes, colours, destinations and the words that name them.

All lengths in metres, masses in kg. A shape's origin is the centre of its bounding box; it rests
on the table with its origin at `half_extents[2]`.
"""

from __future__ import annotations

from dataclasses import dataclass

Vec3 = tuple[float, float, float]
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One primitive of a compound shape: its size (half extents, or radius/length) and offset."""

    kind: str  # "box", "cylinder" or "sphere"
    size: Vec3  # box: half extents; cylinder: (radius, radius, half length); sphere: (r, r, r)
    offset: Vec3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Shape:
    """A kind of object. `known` shapes are detector classes, the others must be found by depth."""

    name: str
    half_extents: Vec3
    parts: tuple[Part, ...] = ()
    mesh: str = ""  # path below pybullet_data, scaled so that it fills half_extents
    mesh_roll: float = 0.0  # rotation about x that stands the mesh upright, rad
    colour: Rgb | None = None  # None: takes any of COLOURS
    graspable: bool = False
    known: bool = True
    mass: float = 0.1

    @property
    def radius(self) -> float:
        """Radius of the circle around its footprint, m."""
        return float((self.half_extents[0] ** 2 + self.half_extents[1] ** 2) ** 0.5)


def _box(x: float, y: float, z: float, offset: Vec3 = (0.0, 0.0, 0.0)) -> Part:
    return Part("box", (x, y, z), offset)


def _cylinder(radius: float, half: float, offset: Vec3 = (0.0, 0.0, 0.0)) -> Part:
    return Part("cylinder", (radius, radius, half), offset)


COLOURS: dict[str, Rgb] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.62, 0.18),
    "blue": (0.10, 0.25, 0.85),
    "yellow": (0.92, 0.82, 0.08),
    "purple": (0.52, 0.14, 0.62),
    "orange": (0.95, 0.48, 0.05),
}

GRASPABLE = {
    s.name: s
    for s in (
        Shape("cube", (0.022, 0.022, 0.022), (_box(0.022, 0.022, 0.022),), graspable=True),
        Shape("block", (0.018, 0.018, 0.040), (_box(0.018, 0.018, 0.040),), graspable=True),
        Shape("can", (0.026, 0.026, 0.034), (_cylinder(0.026, 0.034),), graspable=True),
        Shape("ball", (0.026, 0.026, 0.026), (Part("sphere", (0.026, 0.026, 0.026)),),
              graspable=True),
        Shape("brick", (0.034, 0.018, 0.016), (_box(0.034, 0.018, 0.016),), graspable=True),
    )
}

OBSTACLES = {
    s.name: s
    for s in (
        Shape("bottle", (0.032, 0.032, 0.105),
              (_cylinder(0.032, 0.070, (0, 0, -0.035)), _cylinder(0.013, 0.035, (0, 0, 0.070))),
              mass=0.5),
        Shape("carton", (0.038, 0.038, 0.080), (_box(0.038, 0.038, 0.080),), mass=0.5),
        Shape("duck", (0.040, 0.050, 0.045), mesh="duck_vhacd.obj", mesh_roll=1.5708,
              colour=(0.95, 0.80, 0.10), mass=0.2),
    )
}

UNKNOWN = {
    s.name: s
    for s in (
        Shape("teddy", (0.050, 0.045, 0.060), mesh="teddy2_VHACD_CHs.obj", mesh_roll=1.5708,
              colour=(0.45, 0.28, 0.14), known=False, mass=0.2),
        Shape("cross", (0.050, 0.050, 0.075),
              (_box(0.018, 0.018, 0.075), _box(0.050, 0.018, 0.018, (0, 0, 0.030))),
              known=False, mass=0.3),
    )
}

_BIN_WALL = 0.004


def _open_box(half: float, height: float) -> tuple[Part, ...]:
    h, w = height / 2, _BIN_WALL
    return (
        _box(half, half, 0.003, (0, 0, -h + 0.003)),
        _box(w, half, h, (half - w, 0, 0)), _box(w, half, h, (-half + w, 0, 0)),
        _box(half, w, h, (0, half - w, 0)), _box(half, w, h, (0, -half + w, 0)),
    )


DESTINATIONS = {
    s.name: s
    for s in (
        Shape("plate", (0.085, 0.085, 0.006), (_cylinder(0.085, 0.006),),
              colour=(0.93, 0.93, 0.90), mass=0.0),
        Shape("tray", (0.090, 0.090, 0.012), _open_box(0.090, 0.024),
              colour=(0.36, 0.20, 0.10), mass=0.0),
        Shape("bin", (0.080, 0.080, 0.030), _open_box(0.080, 0.060),
              colour=(0.22, 0.24, 0.28), mass=0.0),
        Shape("zone", (0.075, 0.075, 0.0005), (_box(0.075, 0.075, 0.0005),),
              colour=(0.05, 0.75, 0.78), mass=0.0),
    )
}

SHAPES: dict[str, Shape] = {**GRASPABLE, **OBSTACLES, **UNKNOWN, **DESTINATIONS}

# Detector classes, in the order of their ids.
CLASS_NAMES: tuple[str, ...] = tuple(
    name for name, shape in SHAPES.items() if shape.known
)

# Never seen in training data: used to measure how far the policy generalises.
HELD_OUT_COMBINATIONS: frozenset[tuple[str, str]] = frozenset(
    {("red", "can"), ("green", "cube"), ("blue", "ball"), ("yellow", "block"),
     ("orange", "brick")}
)

PREPOSITION = {"plate": "on", "tray": "on", "bin": "in", "zone": "on"}

TRAIN_TEMPLATES = (
    "put the {object} {preposition} the {destination}",
    "pick up the {object} and place it {preposition} the {destination}",
    "move the {object} to the {destination}",
)
PARAPHRASE_TEMPLATES = (
    "place the {object} {preposition} the {destination}",
    "move the {object} and put it {preposition} the {destination}",
    "pick up the {object} and put it to the {destination}",
)


def instruction_text(template: str, object_name: str, destination: str) -> str:
    """The template in words, for an object such as "red cube" and a destination such as "bin"."""
    return template.format(
        object=object_name, destination=destination, preposition=PREPOSITION[destination]
    )
