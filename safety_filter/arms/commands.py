"""`safety-filter arm`: what is known of an arm, and the beginning of its robot file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "arm", help="what to start for a real arm; -o begins its robot file for fit-robot"
    )
    parser.add_argument("name", nargs="?", help="arm or path of an arm file; none: list them")
    parser.add_argument("-o", "--out", type=Path, help="robot file to write, without bodies")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or write; 1 when the arm is not known or nothing has to be written."""
    import yaml

    from safety_filter.arms import profile
    from safety_filter.core.robot import read_config

    if arguments.name is None:
        for name in profile.names():
            print(f"{name:8} {profile.load(name).title}")
        return 0
    try:
        arm = profile.load(arguments.name)
    except profile.ArmError as error:
        print(f"arm: {error}", file=sys.stderr)
        return 1
    spec = read_config(arm.robot) if arm.robot else arm.robot_file
    if arguments.out is not None:
        if arm.robot:
            print(f"arm: {arm.name} is shipped as robot {arm.robot}", file=sys.stderr)
            return 1
        if arguments.out.exists():
            print(f"arm: {arguments.out} exists; remove it first", file=sys.stderr)
            return 1
        text = yaml.safe_dump(dict(spec), sort_keys=False, width=95, default_flow_style=None)
        arguments.out.write_text(text)
        print(f"wrote {arguments.out}; now: safety-filter fit-robot URDF -o {arguments.out}")
        return 0
    planned = profile.braking_time(arm, spec["joints"])
    print(f"{arm.title}\n\n{arm.driver}\nlimits: {spec['limits_source']}")
    if "acceleration_source" in spec:
        print(f"accelerations: {spec['acceleration_source']}")
    print(f"base {arm.frame}, tool {spec['tool_link']}, joint states on {arm.joint_states}")
    for kind, topic in arm.outputs.items():
        print(f"output {kind} -> {topic}")
    time, source = arm.stopping
    print(f"stops within {time:g} s ({source}); the filter plans with {planned:.2f} s")
    print("\n" + "\n".join(_next(arguments.name, arm.name, bool(arm.robot))))
    return 0


def _next(given: str, name: str, shipped: bool) -> list[str]:
    """The commands from here to the filter in the loop; docs/quickstart.md explains them."""
    launch = f"ros2 launch safety_filter arm.launch.py robot:={given}"
    if shipped:
        return ["then, after the driver:", f"  {launch}", "  safety-filter doctor"]
    return [
        f"then, with the URDF as {name}.urdf and after the driver:",
        f"  safety-filter arm {given} -o {name}.yaml",
        f"  safety-filter fit-robot {name}.urdf -o {name}.yaml",
        f"  {launch} robot_file:=$PWD/{name}.yaml",
        "  safety-filter doctor",
    ]
