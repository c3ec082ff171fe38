"""`replay.launch.py`: a bag's inputs through real topics to the same nodes.

For exact replay and figures use `safety-filter replay`; this is for looking on with RViz and for
trying the nodes themselves. Only inputs are played: what the nodes publish is theirs alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from safety_filter import graph
from safety_filter.graph import NodeSpec
from safety_filter.launch_arguments import COMMON, TOPICS, Argument, configured, settled, truth

_RUN = (
    Argument("bag", "", "folder of the bag (rosbag2); must be given"),
    Argument("delay", "5.0", "s that the nodes have to start before the bag plays"),
    Argument("rate", "1.0", "speed of playing; ages grow with it"),
    Argument("perception", "false", "run perception_node over the recorded images too"),
    Argument("vla", "false", "run vla_node over the recorded images too"),
)


def arguments() -> tuple[Argument, ...]:
    """The launch arguments of replay.launch.py; the clock is the bag's."""
    common = (graph.replace(a, default="true") if a.name == "use_sim_time" else a for a in COMMON)
    return (*_RUN, *TOPICS, *common)


def _chosen(values: Mapping[str, str]) -> dict[str, NodeSpec]:
    """Nodes by name, wired, without a namespace: topics of a bag are absolute."""
    names = [n for n in ("vla", "perception") if truth(n, values.get(n, "false"))]
    specs = [graph.NODES[f"{n}_node"] for n in names]
    decides = graph.NODES["filter_node"].with_parameters(monitored=False)
    to_no_arm = (r for r in decides.remappings if not r[0].endswith("_fallback"))
    specs.append(graph.replace(decides, remappings=tuple(to_no_arm)))
    return {s.name: s for s in settled(configured(specs, arguments(), values))}


def build(values: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the launch arguments `values`.

    Raises:
        ValueError: no bag given.
    """
    if not values.get("bag"):
        raise ValueError("bag: expected the folder of a bag, got nothing; bag:=FOLDER")
    return list(_chosen(values).values())


def topics(values: Mapping[str, str], needed: bool = False) -> list[str]:
    """The topics to play: what the nodes read and no node of this launch publishes.

    needed: only those without which the filter would stand still.
    """
    chosen = _chosen(values)
    read = dict(chosen["filter_node"].remappings)
    kind = values.get("command", "twist")
    command = {"twist": "~/twist_in", "trajectory": "~/trajectory_in"}.get(
        kind, "~/joint_command_in"
    )
    # A name that nothing remaps stays the node's own
    wanted = {read["joint_states"], read["~/obstacles"]}
    wanted.add(read.get(command, command.replace("~", "filter_node")))
    for name in ("vla_node", "perception_node"):
        if name in chosen and not needed:
            # Their private names are outputs
            wanted |= {to for own, to in chosen[name].remappings if not own.startswith("~")}
    made = {"perception_node/obstacles"} if "perception_node" in chosen else set()
    if "vla_node" in chosen:
        made |= {"vla_node/twist", "vla_node/attention", "vla_node/wrist_attention"}
    namespace = values.get("namespace", "").strip("/")
    prefix = f"/{namespace}/" if namespace else "/"
    return sorted(t if t.startswith("/") else prefix + t for t in wanted - made)


def player(values: Mapping[str, str]) -> list[str]:
    """Command line that plays the bag: those of `topics` that are in it.

    Raises:
        ValueError: the bag cannot be read, or lacks one that the filter needs.
    """
    from safety_filter.bags.reader import Bag, BagError

    wanted = topics(values)
    try:
        there = Bag.open(Path(values["bag"])).topics
    except BagError as error:
        raise ValueError(f"bag: {error}") from error
    chosen = [topic for topic in wanted if topic in there]
    missing = [topic for topic in topics(values, needed=True) if topic not in there]
    if missing:
        raise ValueError(
            f"bag: expected {', '.join(missing)}, got {', '.join(there)}; name its topics with the"
            " launch arguments"
        )
    return [
        sys.executable, "-m", "safety_filter.cli", "play", values["bag"],
        "--rate", values.get("rate") or "1.0", "--topics", *chosen,
    ]  # fmt: skip
