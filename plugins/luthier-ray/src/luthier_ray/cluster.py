"""A job on a Ray cluster: connect, see that it fits, have TorchTrainer start the processes, hear what they send."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

# Ray reads it when it is imported. Whoever wants to send statistics sets it to 1.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from luthier import InputError, Job, LuthierError
from luthier_ray.resources import Resources, check_room

_POLL_SECONDS = 0.5
_KNOCK_SECONDS = 10.0
_HTTP2_HEADER, _HTTP2_KIND, _HTTP2_SETTINGS = 9, 3, b"\x04"
"""The bytes of a frame's header, where in it the kind is, and the kind that a server must begin with."""
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _HTTP2_SETTINGS + bytes(5)
_GRACE_SECONDS = 10.0
"""How long a process's error waits for news of another one's death, which may be its cause: Ray looks every 2 s."""


def run(job: Job, address: str, resources: Resources) -> Iterator[Mapping[str, Any]]:
    """Run a job's processes, and yield what they send.

    Raises:
        InputError: if there is no cluster at the address, or it has no room for the job.
        LuthierError: if a process dies.
    """
    with _connected(address), _ray_directory(job) as name:
        nodes, available = ray.nodes(), ray.available_resources()  # type: ignore[no-untyped-call]
        waits = check_room(nodes, available, job.processes, resources)
        if waits:
            yield {"type": "log", "level": "warning", "message": waits}
        queue = Queue(actor_options={"num_cpus": 0})
        training = _Training(_trainer(job, resources, queue, name))
        yield from _messages(job, queue, training)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster. When a driver leaves or dies, Ray ends all that it started."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:
        # Where the head node goes away while Ray looks for it, Ray exits.
        told = "it does not answer" if isinstance(error, SystemExit) else str(error).strip().splitlines()[0]
        raise InputError(
            f"no Ray cluster can be reached at {address!r}: {told}",
            "Start one (`ray start --head`), name its address (`executor: {name: ray, address: HOST:6379}`, or "
            "RAY_ADDRESS), or give the address `local` to use this machine alone.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See whether a head node answers where an address has a port: Ray itself tries for four minutes, and then exits.

    Raises:
        OSError: if nobody listens there, or somebody who does not speak gRPC, which is HTTP/2 (RFC 9113, 3.4), as a
            head node does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or os.environ.get("RAY_USE_TLS", "0") == "1":
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS) as connection:
        connection.sendall(_HTTP2_GREETING)
        try:
            answer = connection.recv(_HTTP2_HEADER)
        except TimeoutError as error:
            raise OSError(f"what listens there did not answer within {_KNOCK_SECONDS:g} s") from error
    if answer[_HTTP2_KIND:][:1] != _HTTP2_SETTINGS:
        raise OSError("what listens there is no head node of Ray")


@contextlib.contextmanager
def _ray_directory(job: Job) -> Iterator[str]:
    """Where Ray Train keeps its own state: it insists on a directory that all the machines share."""
    name = "ray"
    shutil.rmtree(job.checkpoint / name, ignore_errors=True)
    try:
        yield name
    finally:
        shutil.rmtree(job.checkpoint / name, ignore_errors=True)


def _trainer(job: Job, resources: Resources, queue: Queue, name: str) -> TorchTrainer:
    return TorchTrainer(
        _work,
        train_loop_config={"job": job, "queue": queue},
        scaling_config=ScalingConfig(
            num_workers=job.processes, use_gpu=resources.gpus > 0, resources_per_worker=resources.as_ray()
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(job.checkpoint),
            # A step that failed is run again by the user, and goes on from its checkpoint.
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """What each worker does, after Ray Train has set torch's environment and made its process group."""
    job: Job = config["job"]
    queue: Queue = config["queue"]
    job.do(ray.train.get_context().get_world_rank(), queue.put)


class _Training(threading.Thread):
    """TorchTrainer's `fit`, which blocks, beside the one who listens; `error` is what ended it."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(daemon=True)
        self._trainer = trainer
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error


def _messages(job: Job, queue: Queue, training: _Training) -> Iterator[Mapping[str, Any]]:
    while True:
        ended = not training.is_alive()
        try:
            message: Mapping[str, Any] = queue.get(timeout=_POLL_SECONDS)
        except Empty:
            # What was sent before the end has been heard.
            if ended:
                break
            continue
        if message["type"] == "error":
            training.join(_GRACE_SECONDS)
            _refuse_failure(job, training)
        yield message
    _refuse_failure(job, training)


def _refuse_failure(job: Job, training: _Training) -> None:
    if training.error is None:
        return
    if not isinstance(training.error, WorkerGroupError):
        raise LuthierError(f"Ray could not run the step: {training.error}", "See Ray's logs.") from training.error
    rank, failure = min(training.error.worker_failures.items())
    raise LuthierError(
        f"process {rank} of {job.processes} died in the middle of its work: {_last_words(failure)}",
        "What is in the checkpoint is kept: run again to go on from it. If its memory did not suffice, lower the "
        "batch size, or spread the processes over more machines.",
    ) from training.error


def _last_words(failure: BaseException) -> str:
    """What Ray knows of a death, in a line."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    telling = [line for line in lines if "Worker exit detail" in line or "died" in line]
    # Ray goes on with what may have been the cause, for half a page.
    return (telling or lines or [type(failure).__name__])[-1].partition(" Some common causes")[0]
