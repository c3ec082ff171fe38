"""The filter's parameters: every constant of the rows, with unit, range and meaning."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from safety_filter.core.params import ParamTable, param
from safety_filter.core.qp import ITERATIONS
from safety_filter.core.robot import RobotModel, Structs


@dataclass(frozen=True)
class FilterParams:
    """See `TABLE.markdown()`, which is the README's table."""

    rate: float = param(250.0, 'Hz', 100.0, 1000.0, 'rate at which step() is called')
    qp_solver: str = param('daqp', '-', None, None, 'QP back-end', choices=('daqp', 'osqp'))
    qp_iterations: int = param(
        ITERATIONS, '-', 10, 10000, 'most iterations of the QP back-end for one problem; what it '
        'has not solved by then counts as failed')
    deadline: float = param(
        0.004, 's', 1e-4, 0.01, 'longest time a step may take before its answer is discarded')

    # age limits and clocks
    joint_state_age: float = param(
        0.1, 's', 0.002, 1.0, 'oldest joint state acted upon', runtime=True)
    obstacles_age: float = param(0.3, 's', 0.01, 2.0, 'oldest obstacles acted upon', runtime=True)
    command_age: float = param(0.25, 's', 0.01, 2.0, 'oldest command acted upon', runtime=True)
    future_tolerance: float = param(
        0.02, 's', 0.001, 0.5, 'a stamp further ahead than this counts as not received')
    clock_jump: float = param(
        0.1, 's', 0.01, 5.0, 'ROS clock against monotonic clock between two steps; beyond it, '
        'messages received before count as not received')
    base_frames: tuple[str, ...] = param(
        ('base', 'panda_link0'), '-', None, None,
        'frame ids that mean the base frame; a UR has a `base` that does not')
    max_obstacles: int = param(256, 'tracks', 1, 1024, 'more tracks than this are unreadable')

    # barrier
    alpha0: float = param(
        10.0, '1/s', 0.5, 50.0, 'slope of the class-K function near contact', runtime=True)
    brake_acceleration: float = param(
        1.5, 'm/s^2', 0.1, 20.0, 'deceleration of a body that the class-K function asks for, at '
        'most', runtime=True)
    retreat_speed: float = param(
        0.2, 'm/s', 0.01, 1.0, 'fastest retreat asked for when a margin is already violated',
        runtime=True)
    comfort_margin: float = param(
        0.01, 'm', 0.0, 0.2, 'extra clearance of every row that may be used up before a stop',
        runtime=True)
    comfort_share: float = param(
        0.7, '-', 0.1, 1.0, 'share of alpha0 and brake_acceleration asked for; the rest is a '
        'reserve', runtime=True)
    sighting_interval: float = param(
        0.1, 's', 0.0, 1.0, 'time between two sightings of the obstacles: the reserve covers in '
        'advance what ageing will take until the next; 0: nothing', runtime=True)
    obstacle_margin: float = param(
        0.005, 'm', 0.0, 0.3, 'clearance to obstacles on top of the uncertainty terms',
        runtime=True)
    tracking_error: float = param(
        0.003, 'm', 0.0, 0.1, 'position error of a body while the arm follows a command',
        runtime=True)
    sigma_position: float = param(
        2.0, '-', 0.0, 6.0, 'standard deviations of position covered', runtime=True)
    sigma_velocity: float = param(
        2.0, '-', 0.0, 6.0, 'standard deviations of velocity covered', runtime=True)
    obstacle_acceleration: float = param(
        1.0, 'm/s^2', 0.0, 20.0, 'bound on the acceleration of moving obstacles', runtime=True)
    resting_acceleration: float = param(
        0.3, 'm/s^2', 0.0, 20.0, 'the same until an obstacle is faster than resting_speed',
        runtime=True)
    resting_speed: float = param(
        0.03, 'm/s', 0.0, 0.5, 'slower obstacles rest: static scene, level 2', runtime=True)
    sampled_data: float = param(
        1.0, '-', 0.0, 3.0, 'share of the curvature bound c Ts / 2 that is added to each row')

    bound_broken: str = param(
        'flag', '-', None, None, 'what to do when a declared bound is seen to be broken: say so '
        'in the state, or brake as well', choices=('flag', 'brake'), runtime=True)

    # roles
    target_max_distance: float = param(
        0.4, 'm', 0.02, 2.0, 'a target further from the tool is an obstacle to the fingers too',
        runtime=True)
    target_expiry: float = param(
        20.0, 's', 0.5, 120.0, 'longest time one target stays exempt', runtime=True)
    target_hand_margin: float = param(
        -0.02, 'm', -0.05, 0.1, 'clearance of the hand to the target; negative because ellipsoid '
        'and spheres both stand out, and the hand must come down over it', runtime=True)
    support_margin: float = param(
        -0.01, 'm', -0.05, 0.1, 'clearance of the fingers to a support approached from above, '
        'and of what is held to its sides; negative because ellipsoid and spheres both stand out',
        runtime=True)
    support_cosine: float = param(
        0.5, '-', 0.0, 1.0, 'from above: vertical part of the separating normal', runtime=True)
    held_inflation: float = param(
        0.0, 'm', 0.0, 0.1, 'added to the radius of held bodies', runtime=True)

    # static scene
    planes: tuple[float, ...] = param(
        (0.0, 0.0, 1.0, 0.0), 'm', -100.0, 100.0,
        'planes nx ny nz d, four numbers each: bodies stay where n.p >= d (table: 0 0 1 0)')
    plane_margin: float = param(0.01, 'm', -0.05, 0.3, 'clearance to planes', runtime=True)
    plane_finger_margin: float = param(
        -0.008, 'm', -0.05, 0.3, 'the same for fingers; negative because spheres stand out',
        runtime=True)
    plane_held_margin: float = param(
        -0.02, 'm', -0.1, 0.3, 'the same for what is held; negative because the ellipsoid of what '
        'stood on the table reaches below it', runtime=True)
    workspace: tuple[float, ...] = param(
        (-0.9, -0.9, -0.05, 0.9, 0.9, 1.3), 'm', -100.0, 100.0,
        'box for the tool frame: three lower bounds, three upper bounds')
    self_margin: float = param(
        0.0, 'm', -0.05, 0.1, 'clearance between bodies of the robot', runtime=True)

    # speed and separation monitoring
    ssm: bool = param(
        False, '-', None, None, 'keep the protective separation distance of ISO/TS 15066 from '
        'tracks of class person_class', runtime=True)
    person_class: int = param(
        0, '-', 0, 2 ** 31 - 1, 'class_id of persons; what nobody can name (65535) counts as one '
        'too', runtime=True)
    ssm_human_speed: float = param(
        1.6, 'm/s', 0.1, 3.0, 'speed v_h of a person towards the robot, at least', runtime=True)
    ssm_reaction: float = param(
        0.1, 's', 0.001, 2.0, 'reaction time T_r on top of the measured latency', runtime=True)
    ssm_deceleration: float = param(
        2.0, 'm/s^2', 0.1, 20.0, 'least deceleration of a body in a stop (measure it: ISO '
        '10218-1, annex B)', runtime=True)
    ssm_intrusion: float = param(
        0.1, 'm', 0.0, 2.0, 'intrusion distance C of the sensor (ISO 13855)', runtime=True)

    # limits
    velocity_scale: float = param(
        0.5, '-', 0.01, 1.0, 'share of the joint velocity limits', runtime=True)
    acceleration_scale: float = param(
        0.8, '-', 0.05, 1.0, 'share of the joint acceleration limits')
    joint_margin: float = param(0.01, 'rad', 0.0, 0.5, 'distance kept from joint limits')

    # objective
    angular_length: float = param(
        0.08, 'm', 0.01, 3.0, 'length that weighs angular against linear velocity')
    null_space_weight: float = param(
        0.006, 'm^2', 1e-5, 10.0, 'weight of joint velocities under a twist command')
    joint_command_weight: float = param(
        1.0, 'm^2', 1e-5, 10.0, 'weight of joint velocities under a joint command')
    smoothing: float = param(
        0.05, 's', 0.0, 0.5, 'time constant with which a command that rows hold back is given way '
        'to, and with which what only the comfort reserve asks for is done', runtime=True)
    jerk_weight: float = param(
        0.0005, 'm^2', 0.0, 1.0, 'weight of the change from the previous command, when filtering')
    singularity_threshold: float = param(
        0.02, '-', 1e-6, 1.0, 'manipulability below which the twist is damped')
    singularity_damping: float = param(0.1, '-', 0.0, 1.0, 'largest damping factor')
    position_gain: float = param(
        4.0, '1/s', 0.1, 50.0, 'joint position commands: velocity per position error',
        runtime=True)

    # a way round
    circulation: bool = param(
        False, '-', None, None, 'twist commands that an obstacle blocks get a tangent added to '
        'go round it; the rows stay as they are', runtime=True)
    circulation_speed: float = param(
        0.08, 'm/s', 0.005, 0.5, 'speed of the tool along that tangent, at most that commanded',
        runtime=True)
    circulation_wait: float = param(
        0.7, 's', 0.1, 10.0, 'how long a command must be blocked first', runtime=True)

    # stop and reset
    start_stopped: bool = param(False, '-', None, None, 'wait for reset() after start')
    reset_speed: float = param(
        0.02, '-', 1e-4, 1.0, 'a command below this norm counts as near zero when resetting')
    retreat_fraction: float = param(
        0.2, '-', 0.0, 1.0, 'share of the joint velocity limits allowed for moving away while '
        'stopped', runtime=True)


def _slope(p: FilterParams) -> str | None:
    if p.alpha0 > p.rate:
        return f'alpha0 {p.alpha0:g} 1/s times the period 1/rate {1 / p.rate:g} s must be <= 1'
    return None


def _planes(p: FilterParams) -> str | None:
    if len(p.planes) % 4:
        return f'planes: expected four numbers for each plane, got {len(p.planes)}'
    for i in range(0, len(p.planes), 4):
        norm = float(np.linalg.norm(p.planes[i:i + 3]))
        if abs(norm - 1.0) > 1e-3:
            return f'planes: expected a unit normal, got {p.planes[i:i + 3]} of length {norm:.4g}'
    return None


def _workspace(p: FilterParams) -> str | None:
    if len(p.workspace) != 6:
        return f'workspace: expected 6 numbers, got {len(p.workspace)}'
    if any(lo >= hi for lo, hi in zip(p.workspace[:3], p.workspace[3:], strict=True)):
        return f'workspace: lower {p.workspace[:3]} must be below upper {p.workspace[3:]}'
    return None


def _ages(p: FilterParams) -> str | None:
    low = min(p.joint_state_age, p.obstacles_age, p.command_age)
    if low < 1.0 / p.rate:
        return f'age limit {low:g} s must be at least the period 1/rate {1 / p.rate:g} s'
    return None


def _deadline(p: FilterParams) -> str | None:
    if p.deadline > 1.0 / p.rate:
        return f'deadline {p.deadline:g} s must not exceed the period 1/rate {1 / p.rate:g} s'
    return None


def _rest(p: FilterParams) -> str | None:
    if p.resting_acceleration > p.obstacle_acceleration:
        return (f'resting_acceleration {p.resting_acceleration:g} must not exceed '
                f'obstacle_acceleration {p.obstacle_acceleration:g} m/s^2')
    return None


TABLE = ParamTable.of(FilterParams, [_slope, _planes, _workspace, _ages, _deadline, _rest])


def braking_fault(p: FilterParams, robot: RobotModel) -> str | None:
    """Return why `p` asks for more than the arm can brake, or None.

    Braking along the last command takes at most T = max velocity / acceleration, over half the
    distance at full speed, so an approach at alpha0 h stops in time if alpha0 T / 2 <= 1.
    """
    limits = robot.limits
    ratio = p.velocity_scale / p.acceleration_scale
    time = float(np.max(limits.velocity / limits.acceleration)) * ratio
    if p.alpha0 * time / 2 > 1.0:
        return (f'alpha0 {p.alpha0:g} 1/s must be at most {2 / time:.3g} 1/s for this robot: '
                f'braking takes up to {time:.3g} s')
    return None


_GAIN_FIELDS = [f.name for f in dataclasses.fields(FilterParams) if f.type == 'float']
GAINS_DTYPE = np.dtype([(name, 'f8') for name in _GAIN_FIELDS] + [('period', 'f8')])


def gains(p: FilterParams) -> Structs:
    """Return the scalar parameters as an array of one GAINS_DTYPE element, for compiled code."""
    out = np.zeros(1, GAINS_DTYPE)
    for name in _GAIN_FIELDS:
        out[name] = getattr(p, name)
    out['period'] = 1.0 / p.rate
    return out
