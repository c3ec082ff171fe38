"""What is drawn as margin is what the rows keep."""

from __future__ import annotations

import numpy as np
from core.rig import HOME, track

from safety_filter.core.ellipsoids import ELLIPSOID_DTYPE, load_tracks
from safety_filter.core.filter_params import TABLE, gains
from safety_filter.core.kernel import Buffers
from safety_filter.core.margins import track_margins
from safety_filter.core.nominal import NO_COMMAND
from safety_filter.core.robot import RobotModel
from safety_filter.core.rows import COUNT, OBSTACLE_ROW
from safety_filter.core.wire import empty_tracks


def test_margins_are_those_of_the_rows(panda: RobotModel) -> None:
    p, tau = TABLE.validate({'velocity_scale': 1.0, 'acceleration_scale': 1.0}), 0.12
    limits = panda.limits
    b = Buffers(panda, np.stack([limits.lower, limits.upper, 50 * limits.velocity,
                                 1e4 * limits.acceleration]), gains(p), np.zeros((0, 4)),
                np.array([-9.0, -9, -9, 9, 9, 9]), np.zeros(4, ELLIPSOID_DTYPE))
    tracks = np.concatenate([track((0.6, 0.0, 0.5), 0.05, v=(0, 0.2 * k, 0), id=k)
                             for k in range(2)])
    for name, value in (('pxx', 1e-4), ('pyy', 1e-4), ('pzz', 1e-4), ('wxx', 1e-6),
                        ('wyy', 1e-6), ('wzz', 1e-6)):
        tracks[name] = value
    load_tracks(tracks, b.obstacles)
    b.q[:] = HOME
    b.assemble(2, 0.08, tau, -1, NO_COMMAND, False)
    margins = track_margins(tracks, tau, p)
    rows = b.info[:b.counts[COUNT]]
    rows = rows[rows['kind'] == OBSTACLE_ROW]
    assert len(rows) > 10 and margins[1] > margins[0]
    for row in rows:
        centre = tracks[int(row['other'])]
        at = np.array([centre['x'], centre['y'] + tau * centre['vy'], centre['z']])
        distance = (np.linalg.norm(b.points[row['sphere']] - at) - 0.05
                    - panda.spheres['radius'][row['sphere']])
        assert np.isclose(row['h'], distance - margins[int(row['other'])], atol=1e-6)


def test_no_tracks_have_no_margins() -> None:
    assert len(track_margins(empty_tracks(), 0.1, TABLE.validate({}))) == 0
