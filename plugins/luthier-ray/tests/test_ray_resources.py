"""A job that a cluster has no room for, or cannot be brought to, is told of before anything waits."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest

from luthier import InputError, Job
from luthier_ray.resources import Resources, check_room, fitting

CPU = Resources(cpus=2.0, gpus=0.0)
GPU = Resources(cpus=1.0, gpus=1.0)


def node(alive: bool = True, **resources: float):
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("machine", "each", "count"),
    [
        ({"CPU": 4.0, "memory": 1e9}, CPU, 2),
        ({"CPU": 3.9}, CPU, 1),
        ({"CPU": 8.0}, GPU, 0),
        ({"CPU": 8.0, "GPU": 2.0}, GPU, 2),
        ({"CPU": 1.0, "GPU": 4.0}, GPU, 1),
        ({"CPU": 1.0, "GPU": 1.0}, Resources(cpus=0.5, gpus=0.5), 2),
        ({}, CPU, 0),
    ],
)
def test_how_many_processes_fit_on_a_machine(machine, each, count):
    assert fitting(machine, each) == count


def test_processes_are_not_cut_to_fit():
    """Three machines of 3 CPUs have 9 of them, but place for three processes of 2 only."""
    nodes = [node(CPU=3.0) for _ in range(3)]
    assert check_room(nodes, {"CPU": 9.0}, 3, CPU) == ""
    with pytest.raises(InputError, match=r"4 processes of 2 CPU each do not fit .* room for 3 \(3 CPUs and 0 GPUs; 3"):
        check_room(nodes, {"CPU": 9.0}, 4, CPU)


def test_a_machine_that_is_gone_does_not_count():
    with pytest.raises(InputError, match=r"2 processes of 1 CPU and 1 GPU each do not fit .* room for 1"):
        check_room([node(CPU=4.0, GPU=1.0), node(alive=False, CPU=4.0, GPU=4.0)], {}, 2, GPU)


def test_a_cluster_that_others_use_is_waited_for():
    waits = check_room([node(CPU=4.0)], {"CPU": 1.0}, 2, CPU)
    assert waits == "others use the Ray cluster: it has room for 2 processes of 2 CPU each once they are done"


def test_an_address_where_nobody_listens_is_told_at_once(tmp_path):
    from luthier_ray.cluster import run

    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Ray cluster can be reached at '{address}'.*refused") as told:
            next(run(Job(2, "cpu", {"checkpoint": str(tmp_path)}), address, CPU))
    assert "ray start --head" in told.value.remedy
    assert "`local`" in told.value.remedy


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no head node of Ray"),
        (b"", "is no head node of Ray"),
        (None, "did not answer"),
    ],
)
def test_an_address_where_something_else_listens_is_told_at_once(tmp_path, monkeypatch, answer, told):
    """Ray itself tries for four minutes, and then ends the process."""
    from luthier_ray import cluster

    monkeypatch.setattr(cluster, "_KNOCK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        try:
            with pytest.raises(InputError, match=f"no Ray cluster can be reached at '127.0.0.1:.*{told}"):
                next(cluster.run(Job(2, "cpu", {"checkpoint": str(tmp_path)}), "auto", CPU))
        finally:
            done.set()
            thread.join()


def test_statistics_of_use_are_not_sent():
    import os

    import luthier_ray.cluster  # noqa: F401

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_death_is_told_in_a_line():
    from luthier_ray.cluster import _last_words

    told = _last_words(
        RuntimeError(
            "A worker health check failed.\nWorker info: Worker(\n)\nThe actor died unexpectedly.\n\tpid: 3\n"
            "The actor is dead because its worker process has died. Worker exit detail: End of file. "
            "Some common causes include: (1) the process was killed.\n"
        )
    )
    assert told == "The actor is dead because its worker process has died. Worker exit detail: End of file."
    assert _last_words(TimeoutError()) == "TimeoutError"
