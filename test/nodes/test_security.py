"""The SROS2 policy, and files from strangers."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from safety_filter import launch_arguments, security
from safety_filter.arms import wiring
from safety_filter.arms.profile import ArmError
from safety_filter.arms.profile import load as load_arm
from safety_filter.bags.reader import Bag, BagError
from safety_filter.cli import main
from safety_filter.core.robot import RobotError, read_config
from safety_filter.flight.recorder import load as load_flight
from safety_filter.vla.policy import Policy, PolicyError
from safety_filter.vla.profile import ProfileError

ROOT = Path(__file__).resolve().parents[2]
ARM = "/forward_velocity_controller/commands"


def _allowed(text: str, how: str) -> dict[str, set[str]]:
    """Name -> the enclaves that may `how` it: publish, subscribe, reply, request."""
    result: dict[str, set[str]] = {}
    for enclave in ET.fromstring(text).iter("enclave"):
        for group in enclave.iter():
            if group.get(how) == "ALLOW":
                for name in group:
                    result.setdefault(str(name.text), set()).add(
                        enclave.get("path", "").removeprefix("/safety_filter/")
                    )
    return result


@pytest.fixture(scope="module")
def policy() -> str:
    return security.policy(wiring.build({"robot": "panda"}))


def test_only_filter_and_monitor_may_publish_to_the_controller(policy: str) -> None:
    assert _allowed(policy, "publish")[ARM] == {"filter_node", "monitor_node"}
    assert _allowed(policy, "subscribe")[ARM] == {"driver", "viewer"}
    demo = security.policy(launch_arguments.build("demo", {}))
    assert _allowed(demo, "publish")["/arm/joint_velocity"] == {"filter_node", "monitor_node"}


def test_only_the_operator_may_reset_and_change_what_a_node_is(policy: str) -> None:
    requests = _allowed(policy, "request")
    guarded = ("/reset", "/change_state", "/set_parameters", "/set_parameters_atomically")
    for name, callers in requests.items():
        if name.endswith(guarded):
            assert callers == {"operator"}, name
    assert requests["/filter_node/stop"] == {"operator"}
    assert requests["/filter_node/monitor_stop"] == {"monitor_node"}
    # And only the operator says what to do
    assert _allowed(policy, "publish")["/instruction"] == {"operator"}
    # The monitor's own name for it leads to the filter's
    assert not [n for n in requests if n.startswith("/monitor_node/filter_stop")]


def test_each_output_has_one_publisher_and_nothing_is_a_wildcard(policy: str) -> None:
    for name, publishers in _allowed(policy, "publish").items():
        assert "*" not in name
        if name not in (ARM, "/rosout", "/parameter_events"):
            assert len(publishers) == 1, (name, publishers)


@pytest.mark.parametrize("robot", ["panda", "iiwa"])
@pytest.mark.parametrize("output", ["", "trajectory"])
def test_the_policy_follows_the_arm_the_output_and_the_namespace(robot: str, output: str) -> None:
    specs = wiring.build({"robot": robot, "output": output, "namespace": "cell", "vla": "false"})
    text = security.policy(specs)
    (topic,) = security.arm_topics(specs)
    assert topic in load_arm(robot).outputs.values()
    assert _allowed(text, "publish")[topic] == {"filter_node", "monitor_node"}
    assert "/cell/filter_node/reset" in _allowed(text, "request")
    # A policy of one's own publishes what vla_node would have
    assert _allowed(text, "publish")["/cell/vla_node/twist"] == {"driver"}


def test_the_driver_reads_what_the_gripper_is_to_do_and_nothing_else_of_the_graph() -> None:
    for given, topic in (({}, "/vla_node/gripper"), ({"gripper": "/hand"}, "/hand")):
        allowed = _allowed(security.policy(wiring.build({"robot": "panda", **given})), "subscribe")
        heard = {name for name, who in allowed.items() if "driver" in who}
        assert heard == {ARM, topic, "/parameter_events"}
    text = security.policy(wiring.build({"robot": "panda", "vla": "false"}))  # one's own policy
    heard = {name for name, who in _allowed(text, "subscribe").items() if "driver" in who}
    assert heard == {ARM, "/parameter_events"}


def test_without_a_monitor_only_the_filter_commands_the_arm() -> None:
    for output, topic in load_arm("panda").outputs.items():
        specs = wiring.build({"robot": "panda", "monitor": "false", "output": output})
        allowed = _allowed(security.policy(specs), "publish")
        assert allowed[topic] == {"filter_node"}
        assert security.arm_topics(specs) == {topic}


def test_perception_reads_tf_where_the_camera_s_pose_comes_from_it(tmp_path: Path) -> None:
    """By what is typed, by the default of arm.launch.py and by a parameter file."""
    file = tmp_path / "cell.yaml"
    file.write_text("/**/perception_node: {ros__parameters: {extrinsics: topic}}\n")
    for given, read in (({}, "/tf"), ({"extrinsics": "topic"}, "/camera_pose"),
                        ({"params_file": str(file)}, "/camera_pose")):  # fmt: skip
        allowed = _allowed(security.policy(wiring.build({"robot": "panda", **given})), "subscribe")
        for name in ("/tf", "/tf_static", "/camera_pose"):
            assert ("perception_node" in allowed.get(name, set())) == name.startswith(read), given


def test_a_parameter_file_decides_what_the_filter_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text("filter_node: {ros__parameters: {command: trajectory}}\n")
    assert main(["policy", "--arm", "panda", f"params_file:={file}"]) == 0
    allowed = _allowed(capsys.readouterr().out, "subscribe")
    assert "filter_node" in allowed["/filter_node/trajectory_in"]
    assert main(["policy", "--arm", "panda", f"params_file:={tmp_path}/none.yaml"]) == 1
    assert "none.yaml" in capsys.readouterr().err
    assert main(["policy", "--arm", "panda", f"param_file:={file}"]) == 1
    assert "expected NAME:=VALUE of arm.launch.py, got param_file" in capsys.readouterr().err


def test_the_viewer_reads_all_that_is_recorded_and_asks_what_the_doctor_asks(policy: str) -> None:
    from safety_filter.nodes.doctor_node import WANTED

    readers = _allowed(policy, "subscribe")
    of_ros = {"/clock", "/parameter_events", "/tf", "/tf_static"}  # where no node reads them
    for name in {*readers, *_allowed(policy, "publish")} - of_ros:
        assert "viewer" in readers[name], name
    requests = {n for n, who in _allowed(policy, "request").items() if "viewer" in who}
    assert requests == {f"/{name}/get_parameters" for name in WANTED}
    assert not [n for n, who in _allowed(policy, "publish").items()
                if "viewer" in who and n not in ("/rosout", "/parameter_events")]  # fmt: skip


def test_shipped_policies_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    for name, arguments in (("demo", []), ("arm", ["--arm", "panda"])):
        assert main(["policy", *arguments]) == 0
        shipped = (ROOT / f"config/security/{name}.policy.xml").read_text()
        assert capsys.readouterr().out == shipped, name


def test_no_keys_are_tracked() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    suffixes = (".pem", ".p7s", ".key", ".crt", ".csr")
    assert not [f for f in listed.stdout.split() if f.endswith(suffixes)]


# -- files from strangers: each names a command that would leave a file behind ------------------


EVIL = "!!python/object/apply:os.system ['touch owned']\n"


def test_yaml_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text(f"name: {EVIL}")
    with pytest.raises(RobotError, match="constructor"):
        read_config(path)
    with pytest.raises(ArmError, match="constructor"):
        load_arm(str(path))
    profile = Path(tmp_path / "profile.yaml")
    profile.write_text(f"id: {EVIL}")
    with pytest.raises((PolicyError, ProfileError)):
        Policy.load(ROOT / "safety_filter/models/vla", profile)
    assert main(["replay", str(tmp_path), "--config", str(path)]) != 0
    assert "owned" not in os.listdir(tmp_path)


class _Touch:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


def test_weights_and_records_cannot_run_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle
    import shutil

    from safety_filter.perception.detector import Detector, DetectorError

    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(_Touch())
    folder = tmp_path / "vla"
    shutil.copytree(ROOT / "safety_filter/models/vla", folder)
    (folder / "model.safetensors").write_bytes(pickled)
    with pytest.raises(PolicyError):
        Policy.load(folder, None)
    weights = tmp_path / "yolo.onnx"
    weights.write_bytes(pickled)
    with pytest.raises(DetectorError):
        Detector.load(weights)
    torch_weights = tmp_path / "yolo.pt"
    torch_weights.write_bytes(pickled)
    with pytest.raises(DetectorError):
        Detector.load(torch_weights)
    record = tmp_path / "r.flight.npz"
    np.savez(record, header=np.array([_Touch()], object), allow_pickle=True)
    with pytest.raises(Exception, match=r"(?i)allow_pickle|object|record|format"):
        load_flight(record)
    assert "owned" not in os.listdir(tmp_path)


def test_bags_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bag"
    folder.mkdir()
    (folder / "metadata.yaml").write_text(f"rosbag2_bagfile_information: {EVIL}")
    (folder / "bag_0.mcap").write_bytes(b"\\x89MCAP0\\r\\n" + b"\\x80\\x04cos\\nsystem\\n")
    with pytest.raises(BagError):
        Bag.open(folder)
    assert "owned" not in os.listdir(tmp_path)


def test_nothing_in_the_package_unpickles_or_evaluates() -> None:
    """yaml.load, pickle, torch.load without weights_only, eval: none of them is here."""
    bad = ("pickle.load", "yaml.load(", "yaml.unsafe", "marshal.load", "shelve", "joblib.load",
           "allow_pickle=True", "dill.")  # fmt: skip
    for path in (ROOT / "safety_filter").rglob("*.py"):
        text = path.read_text()
        assert not [b for b in bad if b in text], path
        for line in text.splitlines():
            if "torch.load(" in line:
                assert "weights_only=True" in line, path
            assert " eval(" not in line and "=eval(" not in line and "exec(" not in line, path
