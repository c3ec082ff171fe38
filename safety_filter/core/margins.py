"""The clearance that the rows keep to each track, for people who look; terms as in rows.py."""

from __future__ import annotations

import numpy as np

from safety_filter.core.ellipsoids import ELLIPSOID_DTYPE, load_tracks
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.robot import Array
from safety_filter.core.wire import Tracks


def track_margins(tracks: Tracks, tau: float, p: FilterParams) -> Array:
    """Return the margin (n,) of each track `tau` s after its sighting, m.

    m0 + tracking error + k_p s_p + k_v s_v tau + a tau^2 / 2 with the largest standard deviations
    of any direction, so no less than the margin of any row, exemptions of roles apart.
    """
    loaded = np.zeros(len(tracks), ELLIPSOID_DTYPE)
    load_tracks(tracks, loaded)
    rests = loaded['speed'] <= p.resting_speed
    a = np.where(rests, p.resting_acceleration, p.obstacle_acceleration)
    out: Array = (p.obstacle_margin + p.tracking_error + p.sigma_position * loaded['p_sigma']
                  + p.sigma_velocity * loaded['v_sigma'] * tau + a * tau * tau / 2.0)
    return out
