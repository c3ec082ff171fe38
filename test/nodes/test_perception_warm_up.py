"""configure compiles: no picture after it meets a kernel that is not ready."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from safety_filter.demo.processes import ros_environment

pytestmark = pytest.mark.ros
# In a process of its own, where no other test has compiled anything
SCRIPT = """
import json, sys
import rclpy
from numba.core.dispatcher import Dispatcher
from safety_filter.nodes.perception_node import PerceptionNode
from safety_filter.perception.episodes import episode, scenes

def ready():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("safety_filter."):
            for value in vars(module).values():
                if isinstance(value, Dispatcher):
                    key = f"{value.py_func.__module__}.{value.py_func.__name__}"
                    found[key] = sorted(str(s) for s in value.signatures)
    # The simulated arm, which resolves its twists in this process, is no part of the node
    del found["safety_filter.core.nominal.nominal_velocity"]
    return found

rclpy.init()
node = PerceptionNode()
node.configure()
configured = ready()
assert node._perception.tracker.stamp is None and not node._perception.tracker.tracks
tracks = 0
for step in episode(scenes(1)[0], 2.0, rate=5.0):
    f = step.frame
    found = node._perception.update(f.stamp, f.rgb, f.depth, f.K, f.T_base_cam, step.q,
                                    step.opening)
    tracks = max(tracks, len(found.tracks))
after = ready()
print(json.dumps({"configured": configured, "after": after, "tracks": tracks}))
rclpy.shutdown()
"""


def test_configure_compiles_all_that_pictures_use_and_leaves_no_trace() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300,
        env=ros_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["tracks"] > 3  # the pictures had something in them
    assert told["after"] == told["configured"]
    used = [name for name, signatures in told["configured"].items() if signatures]
    assert sum("perception" in name for name in used) >= 10
