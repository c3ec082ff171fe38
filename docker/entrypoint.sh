#!/bin/bash
# node NAME [arguments]       one node, wired as in the demo; with launch arguments of arm.launch.py
#                             (robot:=panda ...) as there; then ROS arguments (-p, -r)
# health [NAME]               exit code 0 while that node (default: the one of this container) tells
#                             its state
# anything else               is run as it is, with ROS in its environment
set -e
if [ -f /opt/ros/jazzy/setup.bash ]; then
    # shellcheck disable=SC1091
    source /opt/ros/jazzy/setup.bash
    export AMENT_PREFIX_PATH="/opt/venv:$AMENT_PREFIX_PATH"
else
    export AMENT_PREFIX_PATH=/opt/venv
fi
export ROS_LOG_DIR="${ROS_LOG_DIR:-$HOME/log}"
case "$1" in
    node) shift; exec python /opt/safety_filter/node.py "$@" ;;
    health) shift; exec python /opt/safety_filter/health.py "$@" ;;
    *) exec "$@" ;;
esac
