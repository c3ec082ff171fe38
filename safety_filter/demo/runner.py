"""Runs the demo: starts the graph, plays scenes without and with the filter, writes results."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from safety_filter import graph, images
from safety_filter.demo import film, report, summary
from safety_filter.demo.client import DemoClient, DemoError
from safety_filter.demo.processes import ProcessGroup, ros_environment
from safety_filter.demo.tasks import Task

# Method -> the simulator's command input: without the filter the policy's twist moves the arm
# directly, through the simulator's own resolver; all nodes run in both cases
METHODS = {"none": "twist", "filter": "joint_velocity"}
READY_SECONDS = 300.0  # the first start compiles the filter
ANSWER_SECONDS = 30.0  # patience with a machine that is busy with something else
SETTLE_SECONDS = 1.0  # after success, so that a late touch still counts


@dataclass(frozen=True)
class Options:
    """What the command line chose."""

    tasks: tuple[Task, ...]
    out: Path
    suite: str = "dynamic-4"
    methods: tuple[str, ...] = tuple(METHODS)
    time_limit: float = 20.0  # s of simulated time for an episode
    gui: bool = False
    parameters: tuple[tuple[str, str, Any], ...] = ()  # (node, parameter, value)


class Runner:
    """One run of the demo."""

    def __init__(self, options: Options, say: Callable[[str], None] = print) -> None:
        self.options = options
        self.say = say
        self.episodes: list[summary.Episode] = []
        self._interrupted = False
        self._started = time.monotonic()
        self._figures: dict[str, list[float]] = defaultdict(list)
        self._shots: dict[tuple[str, int], list[film.Shot]] = {}
        self._nodes = graph.GROUPS["demo"]

    def run(self) -> int:
        """Run everything; returns the exit code. Nothing is left running, however it ends."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        environment = ros_environment()
        os.environ.update(environment)
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        code = 0
        with ProcessGroup(environment, self.options.out / "log") as processes:
            self._processes = processes
            os.environ["ROS_LOG_DIR"] = processes.environment["ROS_LOG_DIR"]
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
            client = DemoClient(self._nodes, self._check)
            try:
                self._start(client)
                for method in self.options.methods:
                    for i, task in enumerate(self.options.tasks):
                        self._episode(client, method, task, i)
            except KeyboardInterrupt:
                self.say("interrupted: stopping all nodes")
                code = 130
            except DemoError as error:
                self.say(f"demo: {error}")
                code = 1
            finally:
                client.close()
        if not self._write(complete=code == 0):
            code = code or 1
        for number, handler in previous.items():
            signal.signal(number, handler)
        return code

    # -- the graph ----------------------------------------------------------------------------

    def _on_signal(self, *_: object) -> None:
        self._interrupted = True

    def _check(self) -> None:
        """Called while waiting: Ctrl-C and dead nodes end the run."""
        if self._interrupted:
            raise KeyboardInterrupt
        for name, code in self._processes.dead().items():
            raise DemoError(f"{name} ended ({code}):\n{self._processes.log_tail(name)}")

    def _start(self, client: DemoClient) -> None:
        o = self.options
        self.say(f"starting {', '.join(self._nodes)}")
        settings: dict[str, dict[str, Any]] = defaultdict(dict)
        settings["sim_node"] = {"suite": o.suite, "gui": o.gui, "seed": o.tasks[0].seed}
        for node, name, value in o.parameters:
            settings[node][name] = value
        for name in self._nodes:
            self._processes.start(graph.NODES[name].with_parameters(**settings[name]))
        reported: set[tuple[str, str]] = set()

        def ready() -> bool:
            for name in self._nodes:
                text = client.state_text(name)
                # Once for each kind of state: figures in it change all the time
                kind = ":".join(text.split(":")[:2])
                if (name, kind) not in reported:
                    reported.add((name, kind))
                    self.say(f"  {time.monotonic() - self._started:5.1f} s  {name}: {text}")
            broken = [n for n in self._nodes if "not configured" in client.state_text(n)]
            if broken:
                raise DemoError(f"{broken[0]} {client.state_text(broken[0])}")
            return all(
                n in client.states and client.states[n].message != "starting" for n in self._nodes
            )

        def states() -> str:
            return "; ".join(f"{n}: {client.state_text(n)}" for n in self._nodes)

        client.wait_for_simulator(READY_SECONDS)
        client.spin_until(ready, READY_SECONDS, lambda: f"all nodes to start; {states()}")

    # -- one episode --------------------------------------------------------------------------

    def _episode(self, client: DemoClient, method: str, task: Task, index: int) -> None:
        answer = client.request(
            "load", suite=self.options.suite, input=METHODS[method], **task.request()
        )
        # The arm was put back: what the nodes remember is of another scene
        for service in ("vla_node/reset", "perception_node/reset"):
            client.call(service)
        self._reset(client, "filter_node/reset")
        self._reset(client, "monitor_node/reset")
        client.filter_counts = Counter()
        client.truth = {}
        client.frame = None
        shots: list[film.Shot] = []
        client.request("start")
        success_at: float | None = None
        while True:
            client.spin_until(
                lambda: bool(client.truth), ANSWER_SECONDS, lambda: "truth from sim_node"
            )
            truth, client.truth = client.truth, {}
            if not truth["running"] or truth["seed"] != task.seed:
                continue
            self._film(client, method, truth, shots)
            success_at = truth["success_time"]
            if success_at is not None and truth["time"] > success_at + SETTLE_SECONDS:
                break
            if truth["time"] > self.options.time_limit:
                break
        client.request("pause")
        total = sum(client.filter_counts.values())
        states = {name: count / total for name, count in client.filter_counts.items()}
        episode = summary.Episode(
            method=method,
            seed=task.seed,
            instruction=answer["instruction"],
            success=success_at is not None,
            success_time=success_at,
            collisions=truth["collisions"],
            min_distance=truth["min_distance"],
            duration=truth["time"],
            filter_states=states if method == "filter" else {},
        )
        self.episodes.append(episode)
        self._shots[method, task.seed] = shots
        self._collect(client, method)
        self._progress(episode, index)
        self._write_summary(self._summary(complete=False))

    def _reset(self, client: DemoClient, service: str) -> None:
        """Call a reset until it is accepted: it needs fresh inputs of the new scene, where the
        policy stands still until it starts."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            accepted, message = client.call(service)
            if accepted:
                return
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{service} is refused: {message};"
                    f" perception says {client.state_text('perception_node')}"
                )
            client.spin_for(0.1)

    def _film(
        self, client: DemoClient, method: str, truth: dict[str, Any], shots: list[film.Shot]
    ) -> None:
        if client.frame is None or truth["time"] < len(shots) / film.RATE:
            return
        image, info, pose = client.frame
        if info is None or pose is None:
            return
        values = client.values("filter_node")
        pair = None
        if values.get("nearest_on_robot") and values.get("nearest_on_obstacle"):
            ends = [values[k].split() for k in ("nearest_on_robot", "nearest_on_obstacle")]
            pair = ([float(v) for v in ends[0]], [float(v) for v in ends[1]])
        picture = film.draw_pair(
            images.rgb(image), images.intrinsics(info), images.pose_matrix(pose), pair
        )
        state = client.state_text("filter_node").split(": ", 1)[-1]
        if method == "none":
            state = "the policy's twist moves the arm; the filter only watches"
        second = ""
        if "nearest_body" in values:
            distance = 1e3 * float(values["nearest_distance_m"])
            second = f"nearest: {values['nearest_body']} and track {values['nearest_track']}"
            second += f", {distance:.0f} mm"
        collided = bool(truth["collisions"])
        shots.append(film.Shot(film.encode(picture), truth["time"], collided, (state, second)))

    def _collect(self, client: DemoClient, method: str) -> None:
        """Keep the rates and latencies that the nodes measured."""
        if method != "filter":
            return
        for name in self._nodes:
            for key, value in client.values(name).items():
                if key.startswith(("rate_", "latency_")):
                    self._figures[f"{name}.{key}"].append(float(value))

    # -- results ------------------------------------------------------------------------------

    def _progress(self, episode: summary.Episode, index: int) -> None:
        touched = sorted({f"{c['body']}-{c['other']}" for c in episode.collisions})
        outcome = "success" if episode.success else "no success"
        self.say(
            f"  {episode.method:6} {index + 1:3d}/{len(self.options.tasks)}"
            f" seed {episode.seed:5d}  {outcome:10} {episode.duration:5.1f} s"
            f"  nearest {1e3 * episode.min_distance:4.0f} mm"
            f"  touched: {', '.join(touched) or 'nothing'}"
        )

    def _summary(self, complete: bool) -> dict[str, Any]:
        means = {k: sum(v) / len(v) for k, v in self._figures.items()}
        rates, latencies = {}, {}
        for key, value in means.items():
            node, _, figure = key.partition(".")
            if figure.startswith("rate_"):
                rates[f"{node}.{figure.removeprefix('rate_').removesuffix('_hz')}"] = value
            else:
                latencies[f"{node}.{figure.removeprefix('latency_').replace('_ms_', '_')}"] = value
        return summary.summarise(
            self.episodes,
            complete=complete,
            suite=self.options.suite,
            rates_hz=rates,
            latency_ms=latencies,
            wall_s=time.monotonic() - self._started,
        )

    def _write_summary(self, content: dict[str, Any]) -> None:
        path = self.options.out / "summary.json"
        try:
            summary.write_json(path, content)
        except OSError as error:
            raise DemoError(f"cannot write {path}: {error}") from error

    def _write(self, complete: bool) -> bool:
        """Say and write the results; False, with a word why, where they could not be written."""
        if not self.episodes:
            return True
        content = self._summary(complete)
        self.say("")
        self.say(summary.table(content))
        try:
            self._write_summary(content)
            path = self.options.out / "film.webm"
            pictures = film.write(path, self._chosen_shots())
            page = report.render(content, path if pictures else None)
            (self.options.out / "report.html").write_text(page, encoding="utf-8")
        except (DemoError, OSError) as error:
            self.say(f"demo: {error}")
            return False
        self.say(f"\nwrote summary.json, report.html, film.webm to {self.options.out}")
        return True

    def _chosen_shots(self) -> Sequence[tuple[str, Sequence[film.Shot]]]:
        """The scene that shows most: touched without the filter, safe success with it."""
        found = {(e.method, e.seed): e for e in self.episodes}

        def score(seed: int) -> tuple[int, int, int]:
            none, with_filter = found.get(("none", seed)), found.get(("filter", seed))
            return (
                sum(e is not None for e in (none, with_filter)),
                int(with_filter is not None and with_filter.safe_success)
                + int(none is not None and none.collided),
                -seed,
            )

        seed = max({e.seed for e in self.episodes}, key=score)
        titles = {"none": "without the filter", "filter": "with the filter"}
        return [
            (titles[m], self._shots[m, seed])
            for m in self.options.methods
            if (m, seed) in self._shots
        ]


def flush_print(text: str) -> None:
    """print that shows at once when piped."""
    print(text, flush=True, file=sys.stdout)

