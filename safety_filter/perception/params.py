"""Parameters of perception, declared once (see core/params.py)."""

from __future__ import annotations

from dataclasses import dataclass

from safety_filter.core.params import ParamTable, param, pose_fault


@dataclass(frozen=True)
class PerceptionParams:
    """Everything `Perception` may be told; lengths in m, times in s, frames are `base`."""

    # detector
    score_min: float = param(0.5, '-', 0.01, 0.99, 'lowest score of a detection', True)
    faint_score: float = param(
        0.1, '-', 0.01, 0.99, 'the same of what shows again a support that is tracked already',
        True)
    sure_score: float = param(
        0.75, '-', 0.01, 1.0, 'a lower score does not split a part off a larger surface')
    mask_grow_px: int = param(3, 'px', 0, 12, 'how far depth may extend a mask beyond its edge')
    # scene
    table_z: float = param(0.0, 'm', -2.0, 2.0, 'height of the table plane in `base`')
    min_height: float = param(0.006, 'm', 0.001, 0.1, 'depth lower than this is the table')
    workspace_min: tuple[float, ...] = param(
        (-0.2, -0.9, -0.05), 'm', -5.0, 5.0, 'lower corner of the space watched')
    workspace_max: tuple[float, ...] = param(
        (1.1, 0.9, 1.2), 'm', -5.0, 5.0, 'upper corner of the space watched')
    depth_min: float = param(0.1, 'm', 0.01, 5.0, 'depth nearer than this is invalid')
    depth_max: float = param(3.0, 'm', 0.2, 20.0, 'depth farther than this is invalid')
    depth_share: float = param(
        0.1, '-', 0.0, 1.0, 'a picture with a smaller share of valid depth is refused')
    # robot mask
    robot_tolerance: float = param(
        0.015, 'm', 0.001, 0.1, 'depth within this of the modelled robot is the robot')
    robot_grow_px: int = param(2, 'px', 0, 8, 'dilation of the robot silhouette')
    # blobs
    depth_step: float = param(
        0.012, 'm', 0.003, 0.2, 'larger depth steps between pixels separate surfaces')
    trim_mad: float = param(4.0, '-', 1.5, 20.0, 'outliers: median absolute deviations kept')
    trim_floor: float = param(0.06, 'm', 0.005, 0.5, 'outliers: deviation that is always kept')
    min_pixels: int = param(8, 'px', 1, 500, 'smallest detection used')
    cluster_min_pixels: int = param(14, 'px', 3, 500, 'smallest unexplained cluster used')
    cluster_join: float = param(0.025, 'm', 0.0, 0.2, 'voxel gap that joins unexplained depth')
    # shape
    size_min: float = param(0.008, 'm', 0.001, 0.1, 'smallest half extent')
    size_max: float = param(0.35, 'm', 0.05, 2.0, 'largest half extent of one track')
    pieces: int = param(4, '-', 1, 16, 'ellipsoids that cover one object, or one wall, at most')
    held_pieces: int = param(2, '-', 1, 8, 'the same for the object in the hand')
    standing_out: float = param(
        0.008, 'm', 0.001, 0.1, 'no more ellipsoids are used than keep within this of the shape')
    support_classes: tuple[str, ...] = param(
        ('plate', 'tray', 'bin', 'zone'), '-', None, None,
        'classes that things rest on or are placed into')
    open_classes: tuple[str, ...] = param(
        ('tray', 'bin'), '-', None, None, 'support classes with walls round an open middle')
    flat_height: float = param(0.03, 'm', 0.002, 0.5, 'support classes are no higher than this')
    open_height: float = param(0.10, 'm', 0.002, 0.5, 'and those with walls no higher than this')
    wall_thickness: float = param(0.008, 'm', 0.001, 0.05, 'thickness of the walls of those')
    # tracker
    position_noise: float = param(0.002, 'm', 1e-4, 0.1, 'sigma of a clean centre')
    occluded_noise: float = param(0.012, 'm', 1e-3, 0.2, 'sigma along an axis with a hidden side')
    accel_quiet: float = param(0.4, 'm/s^2', 1e-3, 10.0, 'process noise of steady motion')
    turn_speed: float = param(0.4, 'm/s', 0.01, 5.0, 'sigma of a jump in velocity')
    surprise: float = param(9.0, '-', 3.0, 50.0, 'innovation (chi^2, 3 dof) that is a surprise')
    shape_sigma: float = param(
        0.003, 'm', 0.0, 0.1, 'sigma of the error that the unseen side of a thing leaves in its'
        ' centre; looking on does not lessen it')
    start_rate: float = param(
        0.3, '1/s', 0.0, 10.0, 'how often what rests sets out')
    unseen_starters: float = param(
        0.6, '-', 0.0, 0.99, 'how likely what goes out of sight at rest sets out some time: nobody'
        ' sees it begin')
    unseen_start_rate: float = param(
        2.5, '1/s', 0.0, 10.0, 'how often it then does')
    stop_rate: float = param(0.5, '1/s', 0.0, 10.0, 'how often what moves stops')
    initial_speed: float = param(0.3, 'm/s', 0.01, 5.0, 'sigma of the velocity at first sight')
    gate_chi2: float = param(25.0, '-', 5.0, 100.0, 'association gate (chi^2, 3 dof)')
    gate_distance: float = param(0.12, 'm', 0.01, 1.0, 'association gate: never farther')
    confirm_hits: int = param(2, '-', 1, 10, 'sightings before a track is'
        ' published; what the first picture shows is at once')
    drop_visible: float = param(
        0.25, 's', 0.02, 10.0, 'an unseen track whose place is in view, and that can be nowhere'
        ' out of sight, is dropped after')
    drop_hidden: float = param(
        4.0, 's', 0.1, 60.0, 'an unseen track whose place is hidden is dropped after,'
        ' unless it is a thing seen often and last at rest: that stays')
    hidden_acceleration: float = param(
        0.4, 'm/s^2', 1e-3, 20.0, 'bound on the acceleration of what moves out of sight: the'
        ' obstacle_acceleration that the filter declares')
    unseen_sigma: float = param(
        0.04, 'm', 0.005, 1.0, 'sigma of the position of an unseen track grows no larger while'
        ' its expected place is hidden')
    unseen_speed: float = param(
        0.10, 'm/s', 0.005, 2.0, 'sigma of the velocity of an unseen track grows no larger')
    carried_height: float = param(
        0.03, 'm', 0.0, 1.0, 'what hangs higher than this above the table is carried by someone,'
        ' and out of sight it may set out at any time')
    carried_sigma: float = param(
        0.10, 'm', 0.005, 1.0, 'in place of unseen_sigma for what is carried, or moved when it was'
        ' last seen')
    carried_speed: float = param(
        0.15, 'm/s', 0.005, 2.0, 'the same in place of unseen_speed')
    refind: float = param(
        2.0, 's', 0.0, 60.0, 'a dropped track may take its id back until drop_hidden and this'
        ' after it was last seen')
    # roles
    attention_age: float = param(0.6, 's', 0.05, 5.0, 'older attention selects nothing', True)
    attention_window: float = param(0.7, 's', 0.05, 5.0, 'window of the target score', True)
    target_gap: float = param(1.4, '-', 1.0, 10.0, 'the best score leads the second by', True)
    target_floor: float = param(
        2.0, '-', 0.5, 50.0, 'the best score exceeds uniform attention by', True)
    hold_factor: float = param(
        0.7, '-', 0.1, 1.0, 'a selected target stays while its lead exceeds gap times this', True)
    named_share: float = param(
        0.5, '-', 0.0, 1.0, 'what fits class and colour that the instruction names less than this'
        ' times as well as what fits them best is no target; 0: words do not matter', True)
    switch_time: float = param(0.2, 's', 0.0, 5.0, 'a new target must lead for', True)
    lost_time: float = param(0.4, 's', 0.0, 5.0, 'a target whose lead is gone ends after', True)
    hidden_fraction: float = param(
        0.33, '-', 0.05, 0.95, 'a candidate less visible than this is hidden', True)
    wrist_fov: float = param(
        0.0, 'deg', 0.0, 170.0, 'field of view of the square picture that the policy gets of the'
        ' camera in the hand; 0: attention to that is not used')
    wrist_xyz: tuple[float, ...] = param(
        (0.0, 0.0, 0.0), 'm', -1.0, 1.0, 'position of its optical frame in the tool frame')
    wrist_xyzw: tuple[float, ...] = param(
        (0.0, 0.0, 0.0, 1.0), '-', -1.0, 1.0, 'its orientation')
    hand_reach: float = param(
        0.15, 'm', 0.0, 1.0, 'what is farther from the tool is never the target because of the'
        ' camera in the hand', True)
    held_opening: float = param(
        0.074, 'm', 0.001, 0.2, 'gripper opening below which something may be held')
    held_distance: float = param(
        0.05, 'm', 0.01, 0.2, 'an object held is no farther from the tool frame')
    held_slip: float = param(0.02, 'm', 0.002, 0.1, 'motion against the tool that ends holding')


def _ordered(p: PerceptionParams) -> str | None:
    for axis, lo, hi in zip('xyz', p.workspace_min, p.workspace_max, strict=True):
        if not lo < hi:
            return f'workspace_min/max: expected min < max along {axis}, got {lo} and {hi}'
    return None


def _three(p: PerceptionParams) -> str | None:
    if len(p.workspace_min) != 3 or len(p.workspace_max) != 3:
        return (f'workspace_min/max: expected 3 numbers each, got {len(p.workspace_min)}'
                f' and {len(p.workspace_max)}')
    return None


def _depths(p: PerceptionParams) -> str | None:
    if not p.depth_min < p.depth_max:
        return f'depth_min/max: expected min < max, got {p.depth_min} and {p.depth_max}'
    return None


def _drops(p: PerceptionParams) -> str | None:
    if p.drop_visible > p.drop_hidden:
        return f'drop_visible: expected <= drop_hidden {p.drop_hidden}, got {p.drop_visible}'
    return None


def _open(p: PerceptionParams) -> str | None:
    extra = set(p.open_classes) - set(p.support_classes)
    return f'open_classes: {sorted(extra)} are not among support_classes' if extra else None


def _wrist(p: PerceptionParams) -> str | None:
    return pose_fault('wrist', p.wrist_xyz, p.wrist_xyzw)


def _first(p: PerceptionParams) -> str | None:
    return _three(p) or _ordered(p)


TABLE = ParamTable.of(PerceptionParams, (_first, _depths, _drops, _open, _wrist))
