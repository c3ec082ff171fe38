"""A robot as flat arrays for the compiled kinematics, from its URDF and a YAML file.

The URDF is parsed by pinocchio; `config/robots/<name>.yaml` adds what a URDF does not say: the
base and tool link, which joints form the arm, acceleration limits, the bodies (spheres in link
frames, see `fit-robot`) and the link pairs whose bodies must not touch.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from safety_filter.core.yaml_file import read_mapping

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Structs = NDArray[np.void]
Record = Any
"""One element of a structured array, as compiled code sees it."""


class RobotError(ValueError):
    """A URDF or robot file that cannot be used; names the link or joint."""


class BodyKind(IntEnum):
    """What a body is for the rules of the roles."""

    ARM = 0
    HAND = 1
    FINGER = 2
    HELD = 3


_AXES = {'X': (1.0, 0.0, 0.0), 'Y': (0.0, 1.0, 0.0), 'Z': (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Limits:
    """Joint limits of the arm, each (n,): rad, rad/s, rad/s^2 (m for prismatic joints)."""

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array


JOINT_DTYPE = np.dtype([
    ('parent', 'i8'),          # joint index, -1: base
    ('column', 'i8'),          # index in the arm's q, -1: gripper joint
    ('prismatic', 'i8'),
    ('gain', 'f8'),            # position of a gripper joint per m of opening
    ('rotation', 'f8', (3, 3)),  # constant placement in the parent's frame
    ('offset', 'f8', 3),
    ('axis', 'f8', 3)], align=True)

SPHERE_DTYPE = np.dtype([
    ('joint', 'i8'),           # joint it moves with, -1: base
    ('kind', 'i8'),            # BodyKind
    ('group', 'i8'),           # index of its link in RobotModel.bodies
    ('columns', 'i8'),         # the first so many arm joints move it
    ('radius', 'f8'),
    ('sigma', 'f8'),           # of where it is, m; zero but for what is held
    ('offset', 'f8', 3)], align=True)  # centre in the joint's frame, m

TOOL_DTYPE = np.dtype([
    ('joint', 'i8'), ('rotation', 'f8', (3, 3)), ('offset', 'f8', 3)], align=True)


@dataclass(frozen=True)
class RobotModel:
    """A tree of joints, spheres on it, limits and self-collision pairs; everything in the base
    frame.

    `joints`, `spheres` and `tool` (one element) are arrays of JOINT_DTYPE, SPHERE_DTYPE and
    TOOL_DTYPE; `self_pairs` (m, 2) holds sphere indices.
    """

    name: str
    base_link: str
    tool_link: str
    joint_names: tuple[str, ...]
    bodies: tuple[str, ...]
    limits: Limits = field(repr=False)
    max_opening: float
    joints: Structs = field(repr=False)
    spheres: Structs = field(repr=False)
    tool: Structs = field(repr=False)
    self_pairs: Ints = field(repr=False)
    urdf: str = field(repr=False)
    tool_only: bool = False

    @property
    def n(self) -> int:
        """Return the number of arm joints."""
        return len(self.joint_names)

    @classmethod
    def load(cls, urdf: str | Path | None,
             config: Mapping[str, Any] | str | Path) -> RobotModel:
        """Return the model of a URDF (path or XML text) and a robot file (path, name or mapping).

        A robot file with `tool_only` needs no URDF (None), see tool_model.py.

        Raises:
            RobotError: unreadable input, or a link, joint or limit that is missing or wrong.
        """
        spec = config if isinstance(config, Mapping) else read_config(config)
        if 'tool_only' in spec:
            from safety_filter.core.tool_model import tool_model
            return tool_model(spec)
        if urdf is None:
            raise RobotError('urdf: expected a path or XML text, got None')
        text = read_urdf(urdf)
        try:
            model = pin.buildModelFromXML(text)
        except Exception as error:
            raise RobotError(f'URDF: {error}') from error
        return _Builder(model, spec, text).build()

    @classmethod
    def shipped(cls, name: str) -> RobotModel:
        """Return a robot of config/robots, its URDF found where the file says (a Python package).

        Raises:
            RobotError: no such robot, or the package that has its URDF is not installed.
        """
        spec = read_config(name)
        return cls.load(None if 'tool_only' in spec else urdf_path(spec), spec)


def config_dir() -> Path:
    """Return the folder of the robot files, in the source tree or in the installed share."""
    here = Path(__file__).resolve().parents[2] / 'config' / 'robots'
    ament = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    shared = [Path(prefix) / 'share' / 'safety_filter' / 'config' / 'robots'
              for prefix in (*ament, sys.prefix)]
    return next((path for path in (here, *shared) if path.is_dir()), shared[-1])


def read_config(config: str | Path) -> dict[str, Any]:
    """Return a robot file, given by path or by the name of a shipped one.

    Raises:
        RobotError: missing or not a YAML mapping.
    """
    path = Path(config)
    if path.suffix not in ('.yaml', '.yml'):
        path = config_dir() / f'{config}.yaml'
    if not path.is_file():
        known = ', '.join(sorted(p.stem for p in config_dir().glob('*.yaml'))) or 'none'
        raise RobotError(f'robot file {path} not found; shipped robots: {known}')
    return read_mapping(path, RobotError)


def urdf_path(spec: Mapping[str, Any]) -> Path:
    """Return where a robot file says its URDF is: `urdf: {package: ..., path: ...}` or a path.

    Raises:
        RobotError: not said, or not there.
    """
    where = spec.get('urdf')
    if isinstance(where, str):
        return Path(where)
    if not isinstance(where, Mapping) or not {'package', 'path'} <= set(where):
        raise RobotError('urdf: expected a path or {package, path}; or pass the URDF itself')
    found = importlib.util.find_spec(str(where['package']))
    if found is None or found.origin is None:
        raise RobotError(f'urdf: Python package {where["package"]} is not installed; '
                         'install it or pass the URDF itself')
    return Path(found.origin).parent / str(where['path'])


def read_urdf(urdf: str | Path) -> str:
    """Return the XML text of a URDF given as text or path.

    Raises:
        RobotError: the file is missing or the text is not a URDF.
    """
    if isinstance(urdf, str) and '<' in urdf:
        text = urdf
    else:
        path = Path(urdf)
        if not path.is_file():
            raise RobotError(f'URDF {path} not found')
        text = path.read_text()
    if '<robot' not in text:
        raise RobotError('URDF: expected a <robot> element, got an empty text or another format')
    return text


def body_spheres(link: str, body: Mapping[str, Any]) -> tuple[str, Array]:
    """Return kind (a name of BodyKind) and spheres (k, 4) of a link of a robot file.

    Raises:
        RobotError: unknown kind, or spheres that are not [x, y, z, r] with r > 0.
    """
    kind = str(body.get('kind', 'arm')).upper()
    if kind not in ('ARM', 'HAND', 'FINGER'):
        raise RobotError(f'link {link}: kind: expected arm, hand or finger, '
                         f'got {body.get("kind")!r}')
    spheres = np.asarray(body.get('spheres', []), float)
    if spheres.ndim != 2 or spheres.shape[1] != 4 or not np.isfinite(spheres).all():
        raise RobotError(f'link {link}: spheres: expected a list of [x, y, z, r], '
                         f'got {body.get("spheres")!r}')
    if spheres[:, 3].min() <= 0:
        raise RobotError(f'link {link}: spheres: radius must be positive')
    return kind, spheres


class _Builder:
    """Turns a pinocchio model and a robot file into a RobotModel, checking every name."""

    def __init__(self, model: pin.Model, spec: Mapping[str, Any], urdf: str) -> None:
        self.model, self.spec, self.urdf = model, spec, urdf
        needed = ('base_link', 'tool_link', 'joints', 'bodies')
        missing = [key for key in needed if key not in spec]
        if missing:
            raise RobotError(f'robot file: missing {", ".join(missing)}')
        self.joints: dict[str, Mapping[str, Any]] = dict(spec['joints'])
        gripper = spec.get('gripper') or {}
        self.gripper: dict[str, float] = dict(gripper.get('joints') or {})
        self.max_opening = float(gripper.get('max_opening', 0.0))
        base = self.frame(spec['base_link'])
        if base.parentJoint != 0:
            raise RobotError(f'base_link {spec["base_link"]}: expected the root of the URDF, '
                             f'got a link moved by {model.names[base.parentJoint]}')
        self.base = base.placement.inverse()

    def frame(self, link: str) -> pin.Frame:
        if not self.model.existBodyName(link):
            known = [f.name for f in self.model.frames if f.type == pin.FrameType.BODY]
            raise RobotError(f'link {link} is not in the URDF; its links: {", ".join(known)}')
        return self.model.frames[self.model.getBodyId(link)]

    def build(self) -> RobotModel:
        self._check_joints()
        arm = list(self.joints)
        spheres, bodies = self._spheres()
        tool_frame = self.frame(self.spec['tool_link'])
        placed = self._placed(tool_frame)
        tool = np.zeros(1, TOOL_DTYPE)
        tool[0] = (tool_frame.parentJoint - 1, placed.rotation, placed.translation)
        return RobotModel(
            name=str(self.spec.get('name', self.model.name)), base_link=self.spec['base_link'],
            tool_link=self.spec['tool_link'], joint_names=tuple(arm), bodies=bodies,
            limits=self._limits(), max_opening=self.max_opening, joints=self._joints(arm),
            spheres=spheres, tool=tool, self_pairs=self._pairs(spheres, bodies), urdf=self.urdf)

    def _joints(self, arm: list[str]) -> Structs:
        model = self.model
        joints = np.zeros(model.njoints - 1, JOINT_DTYPE)
        for i in range(len(joints)):
            place, name = model.jointPlacements[i + 1], model.names[i + 1]
            if model.parents[i + 1] == 0:
                place = self.base * place
            prismatic, axis = self._axis(i + 1)
            column = arm.index(name) if name in arm else -1
            gain = float(self.gripper.get(name, 0.0))
            joints[i] = (model.parents[i + 1] - 1, column, prismatic, gain, place.rotation,
                         place.translation, axis)
        return joints

    def _placed(self, frame: pin.Frame) -> pin.SE3:
        return self.base * frame.placement if frame.parentJoint == 0 else frame.placement

    def _check_joints(self) -> None:
        names = list(self.model.names)[1:]
        for joint in [*self.joints, *self.gripper]:
            if joint not in names:
                raise RobotError(f'joint {joint} is not a moving joint of the URDF; '
                                 f'its moving joints: {", ".join(names)}')
        loose = [n for n in names if n not in self.joints and n not in self.gripper]
        if loose:
            raise RobotError(f'joint {", ".join(loose)}: moves in the URDF but is neither under '
                             'joints nor gripper.joints of the robot file')
        for count, joint in enumerate(self.joints, 1):
            if self._columns(self.model.getJointId(joint)) != count:
                raise RobotError(f'joint {joint}: expected a serial chain from the base in order, '
                                 f'got {", ".join(self.joints)}; the URDF has {", ".join(names)}')

    def _columns(self, index: int) -> int:
        """Return how many arm joints move what is fixed to a joint (0: universe)."""
        count = 0
        while index > 0:
            count += self.model.names[index] in self.joints
            index = self.model.parents[index]
        return count

    def _axis(self, index: int) -> tuple[bool, Array]:
        """Return whether a joint is prismatic, and its axis."""
        joint = self.model.joints[index]
        short = joint.shortname()
        if joint.nq != 1:
            raise RobotError(f'joint {self.model.names[index]}: type {short} is not supported; '
                             'expected revolute or prismatic (give a continuous joint limits)')
        if short.endswith('Unaligned'):
            data = joint.createData()
            joint.calc(data, pin.neutral(self.model))
            subspace = np.asarray(data.S, float).reshape(6)
            prismatic = 'Prismatic' in short
            return prismatic, subspace[:3] if prismatic else subspace[3:]
        letter = short[-1]
        return 'ModelP' in short, np.array(_AXES[letter])

    def _limits(self) -> Limits:
        rows: dict[str, list[float]] = {
            key: [] for key in ('lower', 'upper', 'velocity', 'acceleration')}
        for joint, given in self.joints.items():
            index = self.model.getJointId(joint)
            at = self.model.joints[index].idx_q
            urdf = {'lower': self.model.lowerPositionLimit[at],
                    'upper': self.model.upperPositionLimit[at],
                    'velocity': self.model.velocityLimit[self.model.joints[index].idx_v]}
            for key, values in rows.items():
                value = (given or {}).get(key, urdf.get(key))
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise RobotError(f'joint {joint}: {key}: expected a number, got {value!r}')
                values.append(float(value))
            last = {key: values[-1] for key, values in rows.items()}
            if not np.isfinite(list(last.values())).all():
                raise RobotError(f'joint {joint}: limits must be finite, got {last}')
            if last['lower'] >= last['upper']:
                raise RobotError(f'joint {joint}: lower {last["lower"]} is not below upper '
                                 f'{last["upper"]}')
            if last['velocity'] <= 0 or last['acceleration'] <= 0:
                raise RobotError(f'joint {joint}: velocity {last["velocity"]} and acceleration '
                                 f'{last["acceleration"]} must be positive')
        return Limits(**{key: np.array(values) for key, values in rows.items()})

    def _spheres(self) -> tuple[Structs, tuple[str, ...]]:
        """Return the spheres and the links that carry them."""
        bodies = tuple(self.spec['bodies'])
        out = []
        for link, body in self.spec['bodies'].items():
            frame = self.frame(link)
            place = self._placed(frame)
            kind, spheres = body_spheres(link, body)
            for x, y, z, r in spheres:
                centre = place.act(np.array([x, y, z]))
                out.append((frame.parentJoint - 1, BodyKind[kind], bodies.index(link),
                            self._columns(frame.parentJoint), r, 0.0, tuple(centre)))
        if not out:
            raise RobotError('bodies: expected at least one sphere; run safety-filter fit-robot')
        return np.array(out, SPHERE_DTYPE), bodies

    def _pairs(self, spheres: Structs, bodies: Sequence[str]) -> Ints:
        """Return the sphere pairs (m, 2) of the link pairs under self_pairs."""
        pairs = []
        for pair in self.spec.get('self_pairs') or []:
            for link in pair:
                if link not in bodies:
                    raise RobotError(f'self_pairs: link {link} has no bodies; '
                                     f'links with bodies: {", ".join(bodies)}')
            first, second = (np.flatnonzero(spheres['group'] == bodies.index(x)) for x in pair)
            pairs += [(i, j) for i in first for j in second]
        return np.array(pairs, np.int64).reshape(-1, 2)
