"""What an episode's result hangs on beside its seed and the configuration: code and libraries."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from safety_filter.core.robot import config_dir
from safety_filter.demo.summary import versions

PACKAGE = Path(__file__).resolve().parent.parent
PARTS = ("bench", "core", "perception", "sim", "vla")
"""The subpackages that an episode imports; nodes and documents may change during a run."""
LIBRARIES = ("python", "numpy", "scipy", "numba", "pin", "daqp", "pybullet", "torch",
             "transformers", "onnxruntime", "opencv-python")


@cache
def identity() -> dict[str, Any]:
    """The code's fingerprint (16 hex digits of SHA-256) and the libraries' versions.

    Of the files as they are when this process asks first; a worker asks as it starts.
    """
    digest = hashlib.sha256()
    files = [path for part in PARTS for path in sorted((PACKAGE / part).rglob("*.py"))]
    for path in (*files, config_dir() / "panda.yaml"):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    libraries = {name: v for name, v in versions().items() if name in LIBRARIES}
    return {"code": digest.hexdigest()[:16], "libraries": libraries}
