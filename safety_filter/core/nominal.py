"""The nominal joint velocity of a command, and the objective that measures the change to it.

twist            least-norm q' with J q' = twist, damped near singularities (Nakamura 1986)
joint_velocity   q' itself
joint_position   position_gain (target - q), scaled as a whole into the velocity limits

The filter minimises (q' - wanted)' H (q' - wanted) + jerk_weight |q' - last|^2 with
H = J' W J + w I: the change of the tool twist first, joint motion second. `wanted` is the nominal
one; from when rows hold that back until it is followed again, `wanted` goes from the last answer
to it with the time constant `smoothing`: what one sighting gives and the next takes back is not
driven out in full.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from safety_filter.core.robot import Array, Record

NO_COMMAND, TWIST, JOINT_VELOCITY, JOINT_POSITION = -1, 0, 1, 2
UNCHANGED = 1e-9
"""A twist that comes out to within this (m/s, rad/s) passes unchanged."""
KINDS = {'twist': TWIST, 'joint_velocity': JOINT_VELOCITY, 'joint_position': JOINT_POSITION}


@nb.njit(cache=True, error_model='numpy')
def nominal_velocity(kind: int, command: Array, q: Array, limit: Array, tool_rotation: Array,
                     in_tool_frame: bool, jacobian: Array, p: Record, out: Array) -> bool:
    """Fill `out` (n,) with the nominal joint velocity; return whether damping changed a twist."""
    n = len(q)
    out[:] = 0.0
    if kind == JOINT_VELOCITY:
        for i in range(n):
            out[i] = command[i]
    elif kind == JOINT_POSITION:
        over = 1.0
        for i in range(n):
            out[i] = p.position_gain * (command[i] - q[i])
            over = max(over, abs(out[i]) / limit[i])
        for i in range(n):
            out[i] /= over
    elif kind == TWIST:
        twist = np.zeros(6)
        for r in range(6):
            if in_tool_frame:
                block = r - r % 3
                for c in range(3):
                    twist[r] += tool_rotation[r - block, c] * command[block + c]
            else:
                twist[r] = command[r]
        return bool(_resolve(twist, jacobian, p, out))
    return False


@nb.njit(cache=True, error_model='numpy')
def _resolve(twist: Array, jacobian: Array, p: Record, out: Array) -> bool:
    """Fill `out` with J' (J J' + lambda^2 I)^-1 twist; lambda > 0 near singularities. Return
    whether the tool's twist J out differs from the one asked for."""
    n = jacobian.shape[1]
    gram = np.empty((6, 6))
    for r in range(6):
        for c in range(r + 1):
            total = 0.0
            for i in range(n):
                total += jacobian[r, i] * jacobian[c, i]
            gram[r, c] = total
    factor = np.empty((6, 6))
    det = _cholesky(gram, 0.0, factor)
    measure = np.sqrt(max(det, 0.0))
    damping = 0.0
    if measure < p.singularity_threshold:
        share = 1.0 - measure / p.singularity_threshold
        damping = p.singularity_damping ** 2 * share * share + 1e-12
        _cholesky(gram, damping, factor)
    y = np.empty(6)
    for r in range(6):
        y[r] = twist[r]
        for c in range(r):
            y[r] -= factor[r, c] * y[c]
        y[r] /= factor[r, r]
    for r in range(5, -1, -1):
        for c in range(r + 1, 6):
            y[r] -= factor[c, r] * y[c]
        y[r] /= factor[r, r]
    for i in range(n):
        for r in range(6):
            out[i] += jacobian[r, i] * y[r]
    return bool(damping * np.abs(y).max() > UNCHANGED)  # twist - J out = lambda^2 y


@nb.njit(cache=True, error_model='numpy')
def _cholesky(gram: Array, shift: float, factor: Array) -> float:
    """Fill the lower factor of gram + shift I (6, 6); return its determinant, 0 if singular."""
    det = 1.0
    for r in range(6):
        for c in range(r + 1):
            total = gram[r, c] + (shift if r == c else 0.0)
            for k in range(c):
                total -= factor[r, k] * factor[c, k]
            if r == c:
                if total <= 1e-14:
                    return 0.0
                factor[r, r] = np.sqrt(total)
                det *= total
            else:
                factor[r, c] = total / factor[c, c]
    return det


@nb.njit(cache=True, error_model='numpy')
def smoothing_share(p: Record) -> float:
    """Return the share of a difference that one step makes up with `smoothing`."""
    return float(p.period / max(p.smoothing, p.period))


@nb.njit(cache=True, error_model='numpy')
def objective(kind: int, nominal: Array, last: Array, share: float, jacobian: Array, p: Record,
              hessian: Array, gradient: Array) -> None:
    """Fill H (n, n) and the gradient (n,) at zero of the objective.

    `share` is how much of the way from `last` to `nominal` is wanted.
    """
    n = len(nominal)
    weight = p.null_space_weight if kind == TWIST else p.joint_command_weight
    angular = p.angular_length * p.angular_length
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for r in range(3):
                total += jacobian[r, i] * jacobian[r, j]
                total += angular * jacobian[r + 3, i] * jacobian[r + 3, j]
            hessian[i, j] = hessian[j, i] = total
        hessian[i, i] += weight
    for i in range(n):
        gradient[i] = -p.jerk_weight * last[i]
        for j in range(n):
            gradient[i] -= hessian[i, j] * (last[j] + share * (nominal[j] - last[j]))
    for i in range(n):
        hessian[i, i] += p.jerk_weight
