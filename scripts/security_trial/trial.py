"""Tries whether the SROS2 policy is enforced: who gets through to the arm and to `reset`, and
who can answer in the filter's name.

    python scripts/security_trial/trial.py [config/security/arm.policy.xml]

Makes keys with `ros2 security` in a temporary folder, then lets every enclave, a stranger with
keys of another authority and one without any write where a command or a request would go, and
compares who was heard with what the policy says. Needs `ros2 security` (sros2), g++ and a Fast DDS
that was built with security, such as Debian's `libfastrtps-dev`. Exit code 0: as the policy says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

HERE = Path(__file__).resolve().parent
POLICY = HERE.parents[1] / "config/security/arm.policy.xml"
DOMAIN = "87"
COMMANDS = "std_msgs::msg::dds_::Float64MultiArray_"
REQUESTS = "std_srvs::srv::dds_::Trigger_Request_"
REPLIES = "std_srvs::srv::dds_::Trigger_Response_"
CLOUDS = "sensor_msgs::msg::dds_::PointCloud2_"
TRANSFORMS = "tf2_msgs::msg::dds_::TFMessage_"
SERVICES = ("/filter_node/reset", "/monitor_node/reset", "/filter_node/stop",
            "/filter_node/monitor_stop",
            "/filter_node/set_parameters", "/monitor_node/set_parameters",
            "/filter_node/get_parameters")  # fmt: skip
ANSWERED = ("/filter_node/reset", "/filter_node/monitor_stop")
# Read by the guards and by perception
INPUTS = {"/perception_node/obstacles": CLOUDS, "/tf": TRANSFORMS}
Trial = tuple[str, str, set[str], str]


def allowed(policy: Path, how: str, name: str) -> set[str]:
    """The enclaves that the policy lets `publish`, `subscribe`, `request` or `reply` `name`."""
    return {
        enclave.get("path", "").lstrip("/")
        for enclave in ET.parse(policy).iter("enclave")
        for group in enclave.iter()
        if group.get(how) == "ALLOW" and name in [child.text for child in group]
    }


def make_keys(folder: Path, policy: Path) -> Path:
    """A keystore of its own authority; returns the folder of its enclaves."""
    for command in (["create_keystore", folder],
                    ["generate_artifacts", "-k", folder, "-p", policy]):  # fmt: skip
        words = ["ros2", "security", *map(str, command)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}: {done.stderr}")
    return folder / "enclaves"


def heard(peer: Path, topic: str, kind: str, reader: Path, writers: list[str]) -> dict[str, str]:
    """What became of each writer: refused, unmatched, or how much of it was taken."""
    done = subprocess.run([peer, topic, kind, reader, *writers], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{topic}: {done.stdout}{done.stderr}")
    lines = [line for line in done.stdout.splitlines() if ": " in line]
    return dict(line.split(": ", 1) for line in lines)


def trials_of(policy: Path, arm: str) -> list[Trial]:
    """DDS topic, type, who may write it, who reads it; of what the policy knows."""
    found: list[Trial] = []
    for topic, kind in ({arm: COMMANDS} | INPUTS).items():
        readers = allowed(policy, "subscribe", topic) - {"safety_filter/viewer"}
        if readers:
            found.append((f"rt{topic}", kind, allowed(policy, "publish", topic), min(readers)))
    for service in SERVICES:
        servers, callers = allowed(policy, "reply", service), allowed(policy, "request", service)
        found.append((f"rq{service}Request", REQUESTS, callers, min(servers)))
        if service in ANSWERED:
            found.append((f"rr{service}Reply", REPLIES, servers, min(callers)))
    return found


def main() -> int:
    """Run the trial; returns the exit code."""
    policy = Path(sys.argv[1]) if len(sys.argv) > 1 else POLICY
    os.environ["ROS_DOMAIN_ID"] = DOMAIN  # before the keys are made: they hold for this domain
    names = sorted(e.get("path", "").lstrip("/") for e in ET.parse(policy).iter("enclave"))
    # Both guards may publish there, and nowhere else
    (arm,) = {
        str(topic.text) for enclave in ET.parse(policy).iter("enclave")
        for group in enclave.iter("topics") if group.get("publish") for topic in group
        if {"safety_filter/filter_node", "safety_filter/monitor_node"}
        == allowed(policy, "publish", str(topic.text))
    }  # fmt: skip
    wrong = 0
    with tempfile.TemporaryDirectory() as work:
        peer = Path(work) / "peer"
        subprocess.run(["g++", "-std=c++17", "-o", peer, HERE / "peer.cpp", "-lfastrtps",
                        "-lfastcdr"], check=True)  # fmt: skip
        keys = make_keys(Path(work) / "keys", policy)
        others = make_keys(Path(work) / "others", policy)
        for topic, kind, callers, reader in trials_of(policy, arm):
            strangers = {"keys of another authority": str(others / min(callers)), "no keys": "-"}
            writers = {name: str(keys / name) for name in names} | strangers
            found = heard(peer, topic, kind, keys / reader, list(writers.values()))
            print(f"{topic}, read by {reader}")
            for name, folder in writers.items():
                right = found[folder].startswith("taken") == (name in callers)
                wrong += not right
                print(f"  {name:32} {found[folder]}{'' if right else '   NOT AS THE POLICY SAYS'}")
    print(f"{wrong} not as the policy says")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
