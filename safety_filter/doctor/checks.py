"""From what was seen to findings. Pure functions: what was seen is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from safety_filter.doctor.table import Finding, found

# Sources whose stamps lie further off from the first message to the last have another clock, s
FAR = 2.0
MB = 2**20
IMAGE_SEGMENT = 0.4 * MB  # what the default segment of 512 kB carries without losses
OVERLAP_FINE, OVERLAP_POOR = 0.6, 0.3
ARM_PIXELS = 200
MISSES = 1e-3
LEVER = 0.5  # m from a joint, where the lead of positions is compared with the tracking error
RUNNING = ("PASS", "FILTERED")
ALONE = ("obstacles", "command")  # roles of inputs that one node speaks for


@dataclass
class Endpoint:
    """One publisher or subscription of a topic; `fault` says why its QoS does not match ours."""

    node: str
    type: str
    fault: str = ""


@dataclass
class Stream:
    """One input of a node, as it was seen for `seconds`."""

    node: str
    role: str
    topic: str
    expected: str
    publishers: list[Endpoint] = field(default_factory=list)
    seconds: float = 0.0
    ages: list[float] = field(default_factory=list)  # s by the stamps, empty without stamps
    count: int = 0
    limit: float = 0.0  # age limit in s, 0: none
    frame: str | None = None
    optional: bool = False  # what the node can do without
    size: int = 0  # bytes of the largest message


@dataclass
class Seen:
    """Everything that the checks look at."""

    nodes: Mapping[str, int] = field(default_factory=dict)  # name -> how many
    wanted: tuple[str, ...] = ()
    states: Mapping[str, tuple[int, str, Mapping[str, str]]] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)
    arm_topic: str = ""
    arm_publishers: list[str] = field(default_factory=list)
    arm_type: str = ""
    arm_listeners: list[Endpoint] = field(default_factory=list)
    monitored: bool = True
    base_frames: tuple[str, ...] = ()
    tool_link: str = ""  # a command may be in its frame too
    future_tolerance: float = 0.02
    clock_known: bool = True  # False: use_sim_time is set and nothing comes on /clock
    bound: float = 0.0  # s, obstacles_age
    # m/s^2, what moves accelerates by at most: as the filter and as perception were told
    acceleration: float | None = None
    hidden_acceleration: float | None = None
    lead: float = 0.0  # rad, position_lead where the arm takes positions
    tracking_error: float = 0.0  # m
    rmw: str = ""
    domain: str = ""
    discovery: str = ""
    profile: bool = False  # a Fast DDS profile is set
    shm_free: int | None = None
    shm_needed: int = 0
    shm_users: tuple[str, ...] = ()  # others whose processes hold shared memory here
    rtprio: int = 0
    governor: str = ""
    overlap: float | None = None  # share of the arm's picture with the predicted depth
    arm_pixels: int = 0
    unchecked: str = ""  # why the camera's pose was not looked at


def findings(seen: Seen) -> list[Finding]:
    """Everything there is to say, the worst first."""
    result = [*_nodes(seen), *_machine(seen), *_arm(seen)]
    if not seen.clock_known:
        result.append(found("clock.silent"))
    for stream in seen.streams:
        result += _stream(seen, stream)
    result += [*_latency(seen), *_camera(seen)]
    return sorted(result, key=lambda f: -f.level)


def _nodes(seen: Seen) -> Iterator[Finding]:
    for name in seen.wanted:
        if not seen.nodes.get(name):
            yield found("node.missing", node=name)
    for name, count in seen.nodes.items():
        if count > 1:
            yield found("node.twice", node=name, count=count)
    if seen.nodes.get("filter_node"):
        if not seen.monitored:
            yield found("monitor.missing")
        elif not seen.nodes.get("monitor_node"):  # the filter waits for it
            yield found("node.missing", node="monitor_node")
    mine, theirs = seen.acceleration, seen.hidden_acceleration
    if mine is not None and theirs is not None and theirs < mine:
        yield found("bounds.hidden", filter=mine, perception=theirs)
    if seen.lead * LEVER > seen.tracking_error:
        yield found("bounds.lead", lead=seen.lead, moved=1e3 * seen.lead * LEVER,
                    error=1e3 * seen.tracking_error)  # fmt: skip
    for name, (level, message, values) in seen.states.items():
        if name == "filter_node" and message.startswith("STOPPED operator"):
            yield found("state.operator", message=message)
        elif level >= 2:
            yield found("state.stopped", node=name, message=message)
        elif level == 1 and message not in RUNNING:
            yield found("state.warning", node=name, message=message)
        if values.get("broken_bounds"):
            yield found("bounds.broken", node=name, bounds=values["broken_bounds"])
        if values.get("no_target") == "True" and message in RUNNING:
            yield found("target.none")
        if values.get("warning"):
            yield found("rt.denied", node=name, warning=values["warning"])
        ticks = float(values.get("ticks", 0))
        share = float(values.get("deadline_misses", 0)) / ticks if ticks else 0.0
        if share > MISSES:
            yield found("deadline.misses", node=name, share=share)


def _machine(seen: Seen) -> Iterator[Finding]:
    yield found("middleware", rmw=seen.rmw, domain=seen.domain, discovery=seen.discovery)
    if seen.shm_free is not None and seen.shm_free < seen.shm_needed:
        yield found("shm.small", free=seen.shm_free / MB, needed=seen.shm_needed / MB)
    largest = max((s.size for s in seen.streams), default=0)
    if largest > IMAGE_SEGMENT and not seen.profile:
        yield found("shm.profile", size=largest / MB)
    silent = [s for s in seen.streams if s.publishers and s.count == 0 and not s.optional]
    if seen.shm_users and silent:
        yield found("shm.users", users=", ".join(seen.shm_users))
    if not any(v.get("warning") for _, _, v in seen.states.values()) and seen.rtprio == 0:
        yield found("rt.off", limit=seen.rtprio)
    if seen.governor and seen.governor != "performance":
        yield found("governor", governor=seen.governor)


def _arm(seen: Seen) -> Iterator[Finding]:
    if not seen.arm_topic:
        return
    others = [n for n in seen.arm_publishers if n not in ("filter_node", "monitor_node")]
    if others:
        yield found("arm.publishers", topic=seen.arm_topic, others=", ".join(sorted(others)))
    for listener in seen.arm_listeners:
        if listener.type != seen.arm_type:
            yield found("arm.type", topic=seen.arm_topic, type=seen.arm_type,
                        listener=listener.node, types=listener.type)  # fmt: skip
    if not seen.arm_listeners:
        yield found("arm.unheard", topic=seen.arm_topic)


def _stream(seen: Seen, s: Stream) -> Iterator[Finding]:
    here = {"node": s.node, "topic": s.topic, "role": s.role}
    types = {p.type for p in s.publishers}
    if types - {s.expected}:
        others = ", ".join(sorted(types))
        yield found("topic.type", node=s.node, topic=s.topic, types=others, expected=s.expected)
    for p in s.publishers:
        if p.type == s.expected and p.fault:
            yield found("qos.mismatch", publisher=p.node, node=s.node, topic=s.topic,
                        reason=p.fault)  # fmt: skip
    names = sorted({p.node for p in s.publishers})
    if len(names) > 1 and s.role in ALONE:
        yield found("topic.twice", **here, publishers=", ".join(names))
    if not s.publishers and not s.optional:
        yield found("topic.unpublished", **here)
        return
    if s.count == 0:
        if s.expected in types and not s.optional:
            yield found("topic.silent", **here, seconds=s.seconds)
        return
    yield from _times(seen, s)
    tool = (seen.tool_link,) if s.role == "command" and seen.tool_link else ()
    if s.frame is not None and seen.base_frames and s.frame not in (*seen.base_frames, *tool):
        expected = ", ".join((*seen.base_frames, *tool))
        yield found("frame.unknown", **here, frame=s.frame, expected=expected)


def _times(seen: Seen, s: Stream) -> Iterator[Finding]:
    rate = s.count / s.seconds if s.seconds else 0.0
    least = 2.0 / s.limit if s.limit else 0.0
    if rate < least:
        yield found("rate.low", topic=s.topic, role=s.role, rate=rate, least=least)
    if not s.ages:
        return
    ordered = sorted(s.ages)
    youngest, oldest = ordered[0], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    if youngest < -seen.future_tolerance:
        yield found("clock.ahead", topic=s.topic, ahead=-youngest, tolerance=seen.future_tolerance)
    elif youngest > FAR:
        yield found("clock.far", topic=s.topic, age=youngest)
    elif s.limit and oldest > s.limit:
        yield found("age.old", topic=s.topic, role=s.role, age=oldest, limit=s.limit)


def _latency(seen: Seen) -> Iterator[Finding]:
    """Where the time from camera to command goes, as the nodes measured it (p99, ms)."""

    def figure(node: str, name: str) -> float:
        _, _, values = seen.states.get(node, (0, "", {}))
        return float(values.get(f"latency_{name}_ms_p99", 0.0))

    total = figure("filter_node", "image_to_command")
    if not total or not seen.bound:
        return
    perception = figure("perception_node", "image_to_obstacles")
    last = figure("filter_node", "obstacle_to_command")
    bound = 1e3 * seen.bound
    yield found("latency.budget", total=total, perception=perception, filter=last, bound=bound,
                transport=max(0.0, total - perception - last))  # fmt: skip
    if total > bound:
        yield found("latency.over", total=total, bound=bound)
    elif total > 0.8 * bound:
        yield found("latency.near", total=total, share=total / bound)


def _camera(seen: Seen) -> Iterator[Finding]:
    if seen.unchecked:
        yield found("extrinsics.unchecked", why=seen.unchecked)
    elif seen.overlap is None or seen.arm_pixels < ARM_PIXELS:
        yield found("extrinsics.unseen", pixels=seen.arm_pixels)
    elif seen.overlap < OVERLAP_POOR:
        yield found("extrinsics.off", overlap=seen.overlap)
    elif seen.overlap < OVERLAP_FINE:
        yield found("extrinsics.poor", overlap=seen.overlap)
    else:
        yield found("extrinsics.fine", overlap=seen.overlap)
