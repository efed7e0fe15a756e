"""A cluster of Ray: the one at an address, or one of this machine alone."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from typing import Any

from alignkit import InputError

SECONDS = 5.0  # for a cluster to answer


def connect(address: str) -> Any:
    """Ray, connected.

    Raises:
        InputError: there is no cluster at the address.
    """
    here = not address
    if here:
        # its token in the environment, which Ray would else keep in the home folder;
        # read when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif address != "auto":
        _answers(address)
    import ray

    road = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    try:
        ray.init(
            address="local" if here else address,
            include_dashboard=False if here else None,
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        where = f"--address {address}" if address else "--executor ray"
        raise InputError(f"{where}: no cluster of Ray: {said}") from error
    finally:
        signal.signal(signal.SIGTERM, road)
    return ray


def _answers(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise InputError(f"--address {address}: expected HOST:PORT, ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except OSError as error:
        raise InputError(
            f"--address {address}: no cluster of Ray answers there ({error}); start one"
            " with ray start --head, or leave --address out to work on this machine"
        ) from error


def room(ray: Any, jobs: int | None, processes: int) -> tuple[int, dict[str, int]]:
    """How many jobs at a time, and what each of them takes.

    Raises:
        InputError: no node has that many GPUs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if sum(gpus) and max(gpus) < processes:
        raise InputError(
            f"--executor ray: a job takes {processes} GPUs, and no node of the cluster"
            f" has more than {max(gpus)}"
        )
    per_node = [count // processes for count in (gpus if sum(gpus) else cpus)]
    slots = jobs or max(1, sum(per_node))
    # as many jobs as fit on each node share its processors
    share = max(1, min(max(cpus, default=1), sum(cpus) // slots))
    return slots, {"num_cpus": share, "num_gpus": processes if sum(gpus) else 0}
