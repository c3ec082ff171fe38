"""Launch descriptions from `safety_filter.graph`; needs ROS's `launch` and `launch_ros`."""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from safety_filter import graph


def description(group: str) -> LaunchDescription:
    """Everything that `ros2 launch safety_filter <group>.launch.py` starts."""
    arguments = graph.arguments(group)
    entities = [
        SetEnvironmentVariable(name, value)
        for name, value in graph.environment_variables().items()
    ]
    entities += [
        DeclareLaunchArgument(a.name, default_value=a.default, description=a.text)
        for a in arguments
    ]
    entities += [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="follow /clock"),
    ]
    entities += [_node(graph.NODES[name], arguments) for name in graph.GROUPS[group]]
    return LaunchDescription(entities)


def _node(spec: graph.NodeSpec, arguments: tuple[graph.Argument, ...]) -> Node:
    given = {
        a.parameter: ParameterValue(LaunchConfiguration(a.name))
        for a in arguments
        if a.node == spec.name
    }
    time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    files = [str(graph.share(f"config/{spec.config}"))] if spec.config else []
    return Node(
        package=graph.PACKAGE,
        executable=spec.name,
        name=spec.name,
        namespace=LaunchConfiguration("namespace"),
        remappings=list(spec.remappings),
        parameters=[*files, spec.parameters, given, time],
        respawn=spec.respawn,
        respawn_delay=1.0,
        prefix=f"nice -n {spec.nice}" if spec.nice else "",
        output="screen",
    )
