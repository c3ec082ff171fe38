"""What an episode's result hangs on beside its seed and the configuration: code and libraries."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from safety_filter.core.robot import config_dir
from safety_filter.demo.summary import versions

PACKAGE = Path(__file__).resolve().parent.parent
CODE = ("bench/__init__.py", "bench/causes.py", "bench/cell.py", "bench/episode.py",
        "bench/informed.py", "bench/jobs.py", "bench/methods", "bench/record.py",
        "bench/sources.py", "core", "perception", "sim", "vla")
"""What an episode imports; what runs, keeps and draws episodes may change during a run."""
LIBRARIES = ("python", "numpy", "scipy", "numba", "pin", "daqp", "pybullet", "torch",
             "transformers", "onnxruntime", "opencv-python")


@cache
def identity() -> dict[str, Any]:
    """The code's fingerprint (16 hex digits of SHA-256) and the libraries' versions.

    Of the files as they are when this process asks first; a worker asks as it starts.
    """
    digest = hashlib.sha256()
    files = [path for part in CODE for path in _files(PACKAGE / part)]
    for path in (*files, config_dir() / "panda.yaml"):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    libraries = {name: v for name, v in versions().items() if name in LIBRARIES}
    return {"code": digest.hexdigest()[:16], "libraries": libraries}


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]
