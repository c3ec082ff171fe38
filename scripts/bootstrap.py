"""Build the virtual environment that every make target uses. Standard library only.

Chooses an interpreter, checks the shared libraries that wheels expect from the system, installs
the pinned requirements of setup.py's extras and the package itself (editable). Nothing outside
the environment's folder changes, except system libraries where apt may be run as root.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)
# PyBullet publishes wheels for these; elsewhere pip compiles it for minutes
PYBULLET_WHEELS = ("3.11", "3.10")
EXTRAS = ("sim", "monitor", "vla", "perception", "demo", "bags", "view", "test")
# shared object -> Debian/Ubuntu package, and who needs it
SYSTEM_LIBRARIES = {
    "libgomp.so.1": ("libgomp1", "pinocchio"),
    "libxcb.so.1": ("libxcb1", "opencv-python"),
    "libGL.so.1": ("libgl1", "opencv-python"),
    "libglib-2.0.so.0": ("libglib2.0-0", "opencv-python"),
}
# The wheels' start-up hook exports these; they must not leak into another environment
LEAKS = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH", "PYTHONHOME", "__PYVENV_LAUNCHER__")


class BootstrapError(RuntimeError):
    """Something the user has to do; the message says what to type."""


def clean_environment(ros: bool) -> dict[str, str]:
    """The environment for interpreters probed or built here (a sourced ROS keeps its paths)."""
    return {k: v for k, v in os.environ.items() if ros or k not in LEAKS}


def probe(command: str, ros: bool) -> str | None:
    """Version "3.11" of an interpreter that can build environments, or None."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    if ros:
        code = "import rclpy; " + code
    try:
        done = subprocess.run(
            [command, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment(ros),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def choose_python(ros: bool) -> tuple[str, str]:
    """The interpreter for the environment: (command, version).

    A sourced ROS fixes it (rclpy must import); otherwise one with a PyBullet wheel is preferred.

    Raises:
        BootstrapError: no interpreter >= 3.10 with venv was found.
    """
    wanted = [f"python{v}" for v in PYBULLET_WHEELS] if not ros else []
    found: list[tuple[str, str]] = []
    for command in [*wanted, sys.executable, "python3", "python3.12", "python3.13"]:
        version = probe(command, ros)
        if version and tuple(map(int, version.split("."))) >= OLDEST:
            found.append((command, version))
            if version in PYBULLET_WHEELS or ros:
                return command, version
    if found:
        print(
            f"python {found[0][1]}: PyBullet has no wheel for it and will be compiled"
            " (7-8 minutes on two cores)"
        )
        return found[0]
    if ros:
        raise BootstrapError(
            f"ROS_DISTRO={os.environ['ROS_DISTRO']} is set, but no Python with venv imports rclpy;"
            " install it: sudo apt-get install -y python3-venv ros-jazzy-rclpy"
        )
    raise BootstrapError(
        "no Python >= 3.10 with venv found; install one: sudo apt-get install -y python3-venv"
    )


def missing_libraries() -> list[str]:
    """Debian packages of the shared libraries that cannot be loaded."""
    missing = []
    for name, (package, _) in SYSTEM_LIBRARIES.items():
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(package)
    return missing


def ensure_libraries() -> None:
    """Install missing system libraries as root, otherwise say the line to type.

    Raises:
        BootstrapError: libraries are missing and could not be installed here.
    """
    missing = missing_libraries()
    if not missing:
        return
    line = f"apt-get update && sudo apt-get install -y {' '.join(missing)}"
    users = sorted({u for p, u in SYSTEM_LIBRARIES.values() if p in missing})
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(missing)} (needed by {', '.join(users)})")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], env=environment)
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
        subprocess.run(command, env=environment)
    if missing_libraries():
        raise BootstrapError(
            f"system libraries missing ({', '.join(users)} need them); type: sudo {line}"
        )


def pip(python: Path, *arguments: str, ros: bool) -> None:
    """Run pip in the environment, leaving out its lines about what is there already."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environment(ros),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for text in process.stdout:
        if not text.startswith(("Requirement already", "Looking in", "  Using cached")):
            print("  " + text.rstrip()[:160], flush=True)
    if process.wait() != 0:
        raise BootstrapError(f"pip failed ({process.returncode}): {' '.join(command)}")


def build(venv: Path) -> None:
    """Create or update the environment at `venv` and stamp it."""
    started = time.monotonic()
    ros = bool(os.environ.get("ROS_DISTRO"))
    ensure_libraries()
    python = venv / "bin" / "python"
    if not python.exists():
        command, version = choose_python(ros)
        print(f"creating {venv} with python {version} ({'ROS sourced' if ros else 'ROS wheels'})")
        subprocess.run(
            [command, "-m", "venv", str(venv)], check=True, env=clean_environment(ros)
        )
    extras = [*EXTRAS, *([] if ros else ["ros"])]
    print("installing pinned requirements (first time: some minutes)", flush=True)
    constraints = ["-c", str(ROOT / "constraints.txt")]
    pip(python, "install", *constraints, "setuptools", "wheel", ros=ros)
    pip(
        python,
        "install",
        "--no-build-isolation",
        *constraints,
        "-e",
        f".[{','.join(extras)}]",
        ros=ros,
    )
    (venv / ".installed").write_text(f"extras: {' '.join(extras)}\n", encoding="utf-8")
    print(f"environment ready in {time.monotonic() - started:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder to build")
    arguments = parser.parse_args()
    try:
        build(arguments.venv.absolute())
    except (BootstrapError, subprocess.CalledProcessError) as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
