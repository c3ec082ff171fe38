"""The film: what perception drew, the nearest pair and the method, side by side, as WebM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from safety_filter.nodes import overlay

Image = NDArray[np.uint8]
SIZE = 512  # px, side of one picture
RATE = 10.0  # pictures/s
_RED, _GREEN, _YELLOW, _WHITE = (40, 40, 230), (80, 200, 80), (60, 220, 240), (245, 245, 245)
_BAR = 64


@dataclass
class Shot:
    """One moment of an episode: JPEG bytes of the picture and what is written below it."""

    jpeg: bytes
    time: float  # s since the start of the episode
    collided: bool
    lines: tuple[str, str]


def draw_pair(
    rgb: Image,
    k: NDArray[Any],
    pose: NDArray[Any],
    pair: tuple[Sequence[float], Sequence[float]] | None,
) -> Image:
    """BGR picture of side SIZE with the nearest pair (points (3,) in base) drawn in."""
    scale = SIZE / rgb.shape[0]
    picture = cv2.resize(rgb[:, :, ::-1], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    picture = np.ascontiguousarray(picture)
    if pair is not None:
        start, end = (overlay.pixel(scale * uv) for uv in overlay.project(np.array(pair), k, pose))
        if start is not None and end is not None:
            cv2.line(picture, start, end, _YELLOW, 2, cv2.LINE_AA)
            cv2.circle(picture, start, 4, _YELLOW, -1, cv2.LINE_AA)
            cv2.circle(picture, end, 4, _YELLOW, -1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def encode(picture: Image) -> bytes:
    """JPEG bytes, to keep an episode small in memory."""
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1])


def _panel(shot: Shot | None, title: str, ended: bool) -> Image:
    panel = np.full((SIZE + _BAR, SIZE, 3), 24, np.uint8)
    if shot is None:
        return panel
    data = np.frombuffer(shot.jpeg, np.uint8)
    panel[:SIZE] = cv2.imdecode(data, cv2.IMREAD_COLOR)
    colour = _RED if shot.collided else _GREEN
    if shot.collided:
        cv2.rectangle(panel, (2, 2), (SIZE - 3, SIZE - 3), _RED, 5)
    font = cv2.FONT_HERSHEY_SIMPLEX
    head = f"{title}   {shot.time:4.1f} s" + ("   end" if ended else "")
    cv2.rectangle(panel, (0, 0), (SIZE, 26), (24, 24, 24), -1)
    cv2.putText(panel, head, (8, 18), font, 0.5, _WHITE, 1, cv2.LINE_AA)
    for i, line in enumerate(shot.lines):
        where = (8, SIZE + 24 + 26 * i)
        cv2.putText(panel, line[:62], where, font, 0.5, colour if i == 0 else _WHITE, 1, 16)
    return panel


def write(path: Path, episodes: Sequence[tuple[str, Sequence[Shot]]]) -> int:
    """Write the episodes side by side; returns the number of pictures.

    Raises:
        OSError: the file could not be written whole; an older one stands.
    """
    length = max((len(shots) for _, shots in episodes), default=0)
    if length == 0:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (SIZE * len(episodes), SIZE + _BAR)
    part = path.with_name(f"part_{path.name}")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"VP80"), RATE, size)
    if not writer.isOpened():
        raise OSError(f"{path}: cannot be opened for video")
    for i in range(length):
        panels = [
            _panel(shots[min(i, len(shots) - 1)] if shots else None, title, i >= len(shots))
            for title, shots in episodes
        ]
        writer.write(np.hstack(panels))
    writer.release()
    # A full disk is no error to the writer: what it left has no index
    written = cv2.VideoCapture(str(part)).get(cv2.CAP_PROP_FRAME_COUNT)
    if round(written) != length:
        part.unlink(missing_ok=True)
        raise OSError(f"{path}: the film could not be written whole; is the disk full?")
    part.replace(path)
    return length
