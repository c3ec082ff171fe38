"""Launch descriptions from `safety_filter.graph`; needs ROS's `launch` and `launch_ros`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    TimerAction,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from safety_filter import graph, launch_arguments, playback
from safety_filter.arms import wiring
from safety_filter.launch_arguments import Argument, check_typed

Builder = Callable[[Mapping[str, str]], list[graph.NodeSpec]]


def description(group: str) -> LaunchDescription:
    """Everything that `ros2 launch safety_filter <group>.launch.py` starts."""
    declared = launch_arguments.arguments(group)
    return _description(declared, lambda values: launch_arguments.build(group, values))


def arm() -> LaunchDescription:
    """`arm.launch.py`: everything but the driver of a real arm."""
    return _description(wiring.arguments(), wiring.build)


def replay() -> LaunchDescription:
    """`replay.launch.py`: nodes over the recorded inputs of a bag, through real topics."""
    found = _description(playback.arguments(), playback.build)
    found.add_action(OpaqueFunction(function=_play))
    return found


def _description(arguments: Sequence[Argument], build: Builder) -> LaunchDescription:
    typed: set[str] = set()

    def note(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """What is set before the arguments are declared was typed; afterwards nobody knows."""
        typed.update(context.launch_configurations)
        check_typed(typed, arguments)
        return []

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        values = _values(context, arguments)
        return [_node(spec) for spec in build({k: v for k, v in values.items() if k in typed})]

    return LaunchDescription(
        [
            OpaqueFunction(function=note),
            *(SetEnvironmentVariable(k, v) for k, v in graph.environment_variables().items()),
            *(
                DeclareLaunchArgument(a.name, default_value=a.default, description=a.text)
                for a in arguments
            ),
            OpaqueFunction(function=start),
        ]
    )


def _values(context: LaunchContext, arguments: Sequence[Argument]) -> dict[str, str]:
    return {a.name: LaunchConfiguration(a.name).perform(context) for a in arguments}


def _play(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    values = _values(context, playback.arguments())
    player = ExecuteProcess(cmd=playback.player(values), name="player", output="screen")
    return [TimerAction(period=float(values["delay"]), actions=[player])]


def _told(spec: graph.NodeSpec) -> OpaqueFunction:
    """Says that a node which is not respawned is gone, unless everything ends."""
    text = f"{spec.name} ended and is not started again by itself: look why, then launch again"

    def tell(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        return [] if context.is_shutdown else [LogInfo(msg=text)]

    return OpaqueFunction(function=tell)


def _node(spec: graph.NodeSpec) -> Node:
    return Node(
        package=graph.PACKAGE,
        executable=spec.name,
        name=spec.name,
        exec_name=spec.name,  # in launch's own messages, where the prefix would stand otherwise
        namespace=spec.namespace,
        remappings=list(spec.remappings),
        parameters=graph.parameter_sources(spec),
        ros_arguments=graph.ros_arguments(spec),
        respawn=spec.respawn,
        respawn_delay=1.0,
        on_exit=None if spec.respawn else [_told(spec)],
        prefix=f"nice -n {spec.nice}" if spec.nice else "",
        output="screen",
    )
