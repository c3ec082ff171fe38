"""The demo's results: intervals, counts, files that are whole or absent."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from safety_filter.demo import film, report, summary, tasks
from safety_filter.demo.runner import Options, Runner


def _episode(method: str, seed: int, success: bool, touched: bool) -> summary.Episode:
    touch = {"body": "panda_hand", "other": "red <cube>"}
    return summary.Episode(
        method, seed, "put it", success, 4.0 if success else None, [touch] * touched, 0.01, 6.0,
        {"PASS": 0.7, "FILTERED": 0.3},
    )  # fmt: skip


def _summary() -> dict:
    episodes = [_episode("none", 0, True, True), _episode("none", 1, True, False)]
    episodes += [_episode("filter", 0, True, False), _episode("filter", 1, False, False)]
    return summary.summarise(
        episodes,
        complete=True,
        suite="demo",
        rates_hz={"filter_node.loop": 250.0},
        latency_ms={"filter_node.step_p50": 0.1},
        wall_s=1.0,
    )


def test_safe_success_needs_both() -> None:
    methods = _summary()["methods"]
    assert (methods["none"]["successes"], methods["none"]["safe_successes"]) == (2, 1)
    assert methods["none"]["collisions"] == 1
    assert (methods["filter"]["n"], methods["filter"]["collisions"]) == (2, 0)


def test_json_is_written_whole_and_kept_when_the_new_one_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    summary.write_json(path, _summary())
    assert json.loads(path.read_text())["schema_version"] == summary.SCHEMA_VERSION
    with pytest.raises(ValueError, match="JSON"):
        summary.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text())["complete"] is True
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_report_is_one_file_with_the_film_inside_and_text_escaped(tmp_path: Path) -> None:
    picture = film.draw_pair(
        np.zeros((64, 64, 3), np.uint8),
        np.array([[64.0, 0, 31.5], [0, 64.0, 31.5], [0, 0, 1]]),
        np.eye(4),
        ((0.0, 0.0, 1.0), (0.1, 0.0, 1.0)),
    )
    assert picture.any()
    shot = film.Shot(film.encode(picture), 0.1, True, ("STOPPED", "nearest"))
    path = tmp_path / "film.webm"
    assert film.write(path, [("none", [shot] * 5), ("filter", [shot] * 3)]) == 5
    page = report.render(_summary(), path)
    assert "data:video/webm;base64," in page
    assert "red &lt;cube&gt;" in page
    capture = cv2.VideoCapture(str(path))
    ok, frame = capture.read()
    assert ok and frame.shape == (film.SIZE + 64, 2 * film.SIZE, 3)


@contextmanager
def _full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as where the disk is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _shots(count: int) -> list[film.Shot]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (film.SIZE, film.SIZE, 3), np.uint8) for _ in range(count)]
    return [film.Shot(film.encode(p), 0.1, False, ("PASS", "")) for p in pictures]


def test_a_full_disk_leaves_the_old_film_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "film.webm"
    path.write_bytes(b"the old one")
    shots = _shots(10)
    with _full_disk(60_000), pytest.raises(OSError, match="is the disk full"):
        film.write(path, [("none", shots)])
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["film.webm"]
    assert film.write(path, [("none", shots)]) == 10


def test_a_demo_whose_results_find_no_room_tells_them_and_ends_with_1(tmp_path: Path) -> None:
    said: list[str] = []
    runner = Runner(Options((tasks.Task(0),), tmp_path), said.append)
    runner.episodes = [_episode("none", 0, True, True), _episode("filter", 0, True, False)]
    runner._shots = {("none", 0): _shots(10), ("filter", 0): _shots(10)}
    assert runner._write(complete=True)
    for size, words in ((100, "cannot write"), (60_000, "is the disk full")):
        said.clear()
        with _full_disk(size):
            assert not runner._write(complete=True)
        text = "\n".join(said)
        assert words in text and "collisions" in text  # the table all the same
    assert json.loads((tmp_path / "summary.json").read_text())["complete"] is True


def test_film_without_pictures_is_not_written(tmp_path: Path) -> None:
    assert film.write(tmp_path / "film.webm", [("none", [])]) == 0
    assert not (tmp_path / "film.webm").exists()


def test_instruction_finds_a_scene_with_the_named_things() -> None:
    task = tasks.for_instruction("Put the red cube on the plate.", "demo", 0)
    assert (task.target, task.destination) == ("red cube", "plate")
    assert task.request()["instruction"] == "Put the red cube on the plate."


@pytest.mark.parametrize("text", ["dance", "put the red cube on the moon", "on the plate"])
def test_instruction_that_names_nothing_lists_what_can_be_named(text: str) -> None:
    with pytest.raises(tasks.TaskError, match=r"objects: .* destinations: plate"):
        tasks.for_instruction(text, "demo", 0)
