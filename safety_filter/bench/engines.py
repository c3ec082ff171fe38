"""Where episodes run: worker processes of this machine, or a Ray cluster. Same results."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from safety_filter.bench.identity import identity
from safety_filter.bench.jobs import Config, Job, run_job

Runner = Callable[[Config, Job], dict[str, Any]]
ATTEMPTS = 2  # a job whose worker died is tried once more


class EngineError(RuntimeError):
    """The engine cannot be started, or a worker runs other code; says what to do."""


def failed(job: Job, error: str) -> dict[str, Any]:
    """The line of an episode that could not be run."""
    return {"suite": job.suite, "seed": job.seed, "method": job.method, "error": error}


def attempt(run: Runner, config: Config, job: Job) -> dict[str, Any]:
    """Run a job; an exception becomes its line."""
    try:
        return run(config, job)
    except Exception as error:  # any fault of one episode must not end the others
        return failed(job, f"{type(error).__name__}: {error} | {traceback.format_exc(limit=-3)}")


def _signed(run: Runner, config: Config, job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a worker answers: who ran it, and its line."""
    return identity(), attempt(run, config, job)


def _checked(answer: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """The line of an answer, if it was made by this process' code and libraries."""
    by, line = answer
    ours = identity()
    if by != ours:
        raise EngineError(
            f"{line['suite']} seed {line['seed']} {line['method']}: expected a worker with code "
            f"{ours['code']} and {ours['libraries']}, got {by['code']} and {by['libraries']}; "
            "results of both must not be mixed: install one version everywhere, and leave the "
            "files alone while it runs (--ray: on every machine)")
    return line


def processes(config: Config, jobs: Iterable[Job], workers: int,
              run: Runner = run_job) -> Iterator[dict[str, Any]]:
    """Yield the lines of all jobs in the order in which they end.

    A worker that dies takes only its own job with it: that is tried once more in a new worker and
    then reported. Workers end with the generator.

    Raises:
        EngineError: a worker was started from other code or libraries than this process.
    """
    context = mp.get_context("spawn")
    # Read as soon as a worker imports numpy or transformers, so they are there before it starts
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    waiting = deque((job, 1) for job in jobs)
    pool: dict[Connection, tuple[Any, tuple[Job, int] | None]] = {}
    try:
        while waiting or any(busy for _, busy in pool.values()):
            while waiting and len(pool) < workers:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, run, config), daemon=True)
                process.start()
                theirs.close()
                pool[ours] = (process, None)
            for pipe, (process, busy) in list(pool.items()):
                if busy is None and waiting:
                    job, tried = waiting.popleft()
                    pool[pipe] = (process, (job, tried))
                    with suppress(OSError):  # died since its last answer: its pipe ends below
                        pipe.send(job)
            for pipe in wait([p for p, (_, busy) in pool.items() if busy]):
                assert isinstance(pipe, Connection)
                process, busy = pool[pipe]
                assert busy is not None
                try:
                    line = _checked(pipe.recv())
                    pool[pipe] = (process, None)
                except (EOFError, OSError):
                    process.join()
                    del pool[pipe]
                    job, tried = busy
                    if tried < ATTEMPTS:
                        waiting.appendleft((job, tried + 1))
                        continue
                    line = failed(job, f"worker died {tried} times, exit code {process.exitcode}")
                yield line
    finally:
        for pipe, (process, busy) in pool.items():
            pipe.close()  # who waits for a job ends by itself, and leaves no semaphores behind
            if busy:
                process.terminate()
        for process, _ in pool.values():
            process.join(5.0)
            process.terminate()


def _serve(pipe: Connection, run: Runner, config: Config) -> None:
    """A worker: one job after the other until the pipe closes."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    while True:
        try:
            job = pipe.recv()
            pipe.send(_signed(run, config, job))
        except (EOFError, OSError):
            return


def ray_cluster(config: Config, jobs: Iterable[Job], address: str | None,
                run: Runner = run_job) -> Iterator[dict[str, Any]]:
    """The same on Ray: a local instance, or the cluster at `address`.

    Every machine needs this package installed, and the same libraries.

    Raises:
        EngineError: Ray is not installed, the cluster cannot be reached, or one of its machines
            has other code or libraries.
    """
    try:
        import ray
    except ImportError as error:
        raise EngineError("--ray: Ray is not installed; pip install 'safety_filter[ray]'"
                          ) from error
    try:
        _reach(address)
        # "local": without an address Ray would join whatever cluster runs on this machine
        ray.init(address=address or "local", log_to_driver=False, include_dashboard=False,
                 ignore_reinit_error=True)
    except (OSError, RuntimeError, ValueError) as error:
        where = f"--address {address}: cannot be reached" if address else "Ray does not start"
        raise EngineError(f"{where} ({error}); start a cluster with `ray start --head`, and name "
                          "its HOST:6379 from one of its machines or ray://HOST:10001 from "
                          "elsewhere, or leave --address out") from error
    try:
        yield from _on_ray(ray, config, jobs, run)
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Ray itself tries for minutes before it says that nobody answers.

    Raises:
        OSError: nobody listens at a HOST:PORT or ray://HOST:PORT.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()


def _on_ray(ray: Any, config: Config, jobs: Iterable[Job], run: Runner,
            ) -> Iterator[dict[str, Any]]:
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_signed)
    waiting, running = deque(jobs), {}
    while waiting or running:
        room = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
        while waiting and len(running) < room:
            job = waiting.popleft()
            running[remote.remote(run, config, job)] = job
        done, _ = ray.wait(list(running))
        for reference in done:
            job = running.pop(reference)
            try:
                yield _checked(ray.get(reference))
            except ray.exceptions.RayError as error:
                yield failed(job, f"worker died {ATTEMPTS} times: {error}")
