"""The other side of peers.py, run by path in the peers' environment: nothing of this package here.

    python peer_cbfpy.py DATA.npz BACKEND STEPS   -> one line of JSON on standard output
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cbfpy import CBF, CBFConfig

ALPHA = 10.0
TOLERANCE = {'qpax': 1e-3, 'elastiqp': 1e-6}
"""qpax: cbfpy's default; elastiqp: that of cbfpy's own demo."""


class Arm(CBFConfig):
    """A velocity-controlled arm of spheres among balls; state (q, time since the sighting)."""

    def __init__(self, data: dict[str, Any], backend: str) -> None:
        self.data = data
        self.n = len(data['limit'])
        obstacles = tuple(jnp.array(data[k][0] if data[k].ndim == 3 else data[k])
                          for k in ('centres', 'velocities', 'radii'))
        super().__init__(n=self.n + 1, m=self.n, u_min=-data['limit'], u_max=data['limit'],
                         solver_tol=TOLERANCE[backend], backend=backend, init_args=obstacles)

    def f(self, z: Any, *_: Any) -> Any:
        return jnp.zeros(len(z)).at[-1].set(1.0)

    def g(self, z: Any, *_: Any) -> Any:
        return jnp.vstack([jnp.eye(len(z) - 1), jnp.zeros((1, len(z) - 1))])

    def h_1(self, z: Any, centres: Any, velocities: Any, radii: Any) -> Any:
        points = self.points(z[:-1])
        moved = centres + velocities * z[-1]
        gap = jnp.linalg.norm(points[:, None] - moved[None], axis=2)
        return (gap - radii[None] - self.data['sphere_radius'][:, None]).ravel()

    def alpha(self, h: Any, *_: Any) -> Any:
        return ALPHA * h

    def points(self, q: Any) -> Any:
        """Return the centres of the moving spheres (s, 3)."""
        d = self.data
        rotations, positions = [], []
        for i in range(len(d['joint_parent'])):
            parent, column = int(d['joint_parent'][i]), int(d['joint_column'][i])
            base = rotations[parent] if parent >= 0 else jnp.eye(3)
            position = base @ d['joint_offset'][i]
            position = position + (positions[parent] if parent >= 0 else 0.0)
            turned = base @ d['joint_rotation'][i]
            value = q[column] if column >= 0 else float(d['joint_gain'][i] * d['opening'])
            x, y, z = d['joint_axis'][i]
            if d['joint_prismatic'][i]:
                position = position + turned @ d['joint_axis'][i] * value
            else:
                skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
                turned = turned @ (jnp.eye(3) + jnp.sin(value) * skew
                                   + (1 - jnp.cos(value)) * (skew @ skew))
            rotations.append(turned)
            positions.append(position)
        return jnp.stack([positions[j] + rotations[j] @ offset for j, offset in
                          zip(d['sphere_joint'], d['sphere_offset'], strict=True)])


def main() -> None:
    """Time the calls."""
    path, backend, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    jax.config.update('jax_enable_x64', backend == 'elastiqp')  # it works in doubles only
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    started = time.perf_counter()
    cbf = CBF.from_config(Arm(data, backend))
    radii = jnp.array(data['radii'])
    inputs = [(jnp.append(jnp.array(data['q'][k]), 0.0), jnp.array(data['nominal'][k]),
               jnp.array(data['centres'][k]), jnp.array(data['velocities'][k]))
              for k in range(min(steps, len(data['q'])))]
    for z, nominal, centres, velocities in inputs[:3]:
        jax.block_until_ready(cbf.safety_filter(z, nominal, centres, velocities, radii))
    ready = time.perf_counter() - started
    wall, cpu, finite = np.zeros(len(inputs)), np.zeros(len(inputs)), 0
    for k, (z, nominal, centres, velocities) in enumerate(inputs):
        t0, c0 = time.perf_counter(), time.process_time()
        answer = np.asarray(cbf.safety_filter(z, nominal, centres, velocities, radii))
        cpu[k], wall[k] = time.process_time() - c0, time.perf_counter() - t0
        finite += bool(np.isfinite(answer).all())
    print(json.dumps({
        'p50_us': round(1e6 * float(np.percentile(wall, 50)), 1),
        'p99_us': round(1e6 * float(np.percentile(wall, 99)), 1),
        'cpu_p50_us': round(1e6 * float(np.percentile(cpu, 50)), 1),
        'cpu_p99_us': round(1e6 * float(np.percentile(cpu, 99)), 1),
        'rows': int(len(radii) * len(data['sphere_radius'])), 'start_up_s': round(ready, 2),
        'finite_share': round(finite / len(inputs), 4)}))


if __name__ == '__main__':
    main()
