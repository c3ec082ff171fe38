"""The clearance that the rows keep to each track, for people who look; terms as in rows.py."""

from __future__ import annotations

import numpy as np

from safety_filter.core.ellipsoids import ELLIPSOID_DTYPE, load_tracks
from safety_filter.core.filter_params import FilterParams, gains
from safety_filter.core.robot import Array
from safety_filter.core.surge import resting, way
from safety_filter.core.wire import Tracks


def track_margins(tracks: Tracks, tau: float, p: FilterParams) -> Array:
    """Return the margin (n,) of each track `tau` s after its sighting, m.

    m0 + tracking error + k_p s_p + k_v s_v tau + W(tau) with the largest standard deviations of
    any direction, so no less than the margin of any row, exemptions of roles apart.
    """
    loaded = np.zeros(len(tracks), ELLIPSOID_DTYPE)
    load_tracks(tracks, loaded)
    gain, off = gains(p)[0], p.sigma_velocity * loaded['v_sigma']
    strayed = [way(tau, resting(speed, tau, gain), gain) for speed in loaded['speed'] + off]
    out: Array = (p.obstacle_margin + p.tracking_error + p.sigma_position * loaded['p_sigma']
                  + off * tau + strayed)
    return out
