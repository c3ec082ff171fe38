"""Whether a window can be opened, asked before PyBullet: it ends the whole process if not."""

from __future__ import annotations

import ctypes
import os


def display_fault() -> str | None:
    """Why no window can be opened on X11, with what to do; None where one can."""
    name = os.environ.get("DISPLAY")
    if not name:
        return (
            "no display for the window: DISPLAY is not set; start it on a desktop, with ssh -X,"
            " or under xvfb-run"
        )
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return "no display for the window: libX11.so.6 is missing (apt-get install libx11-6)"
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    display = x11.XOpenDisplay(None)
    if not display:
        return f"no display for the window: no X server lets us in at DISPLAY={name}"
    x11.XCloseDisplay(display)
    return None
