"""Several GPUs or machines: the same command again, under torchrun."""

import atexit
import gc
import os
import socket
import subprocess
import sys

import torch

from losia_cli.processes import EXIT_INTERRUPTED, Stopped, StopTogether

_WORKER = "LOSIA_WORKER"  # in the environment of those that `torchrun` starts


def first_process() -> bool:
    """Whether this process checks and settles what all of a run share.

    It is the only one, or the first of another launcher's; our own workers come after that.
    """
    return _WORKER not in os.environ and os.environ.get("RANK", "0") == "0"


def wants_torchrun() -> bool:
    """Whether this process should start one worker per GPU: as LLaMA-Factory decides it."""
    if "LOCAL_RANK" in os.environ:  # a worker already
        return False
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in ("1", "true", "y")
    return forced or torch.cuda.device_count() > 1


def end_in_order() -> None:
    """Let a worker's process group end before Python does, which its threads may abort (SIGABRT).

    A model made parallel keeps the group beyond its destruction, in a cycle of references.
    """
    if "LOCAL_RANK" in os.environ:
        atexit.register(gc.collect)


def torchrun(arguments: list[str]) -> int:
    """Run `losia ARGUMENTS` once per worker and return the exit code.

    Reads LLaMA-Factory's environment variables: NNODES, NODE_RANK, NPROC_PER_NODE, MASTER_ADDR,
    MASTER_PORT, RDZV_ID, MIN_NNODES, MAX_NNODES, MAX_RESTARTS.
    """
    environment = os.environ
    nodes = environment.get("NNODES", "1")
    workers = environment.get("NPROC_PER_NODE", str(max(torch.cuda.device_count(), 1)))
    address = environment.get("MASTER_ADDR", "127.0.0.1")
    port = environment.get("MASTER_PORT") or str(_free_port())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", workers]
    if rendezvous := environment.get("RDZV_ID"):
        fewest, most = environment.get("MIN_NNODES"), environment.get("MAX_NNODES")
        command += ["--nnodes", f"{fewest}:{most}" if fewest and most else nodes]
        command += ["--rdzv-id", rendezvous, "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", f"{address}:{port}"]
        command += ["--max-restarts", environment.get("MAX_RESTARTS", "0")]
    else:
        command += ["--nnodes", nodes, "--node-rank", environment.get("NODE_RANK", "0")]
        command += ["--master-addr", address, "--master-port", port]
    # A session of its own: Ctrl-C reaches the workers once, from us. The rank that ends first has
    # saved with all others; where ends are mended by restarts, torchrun itself must know of it.
    restarted = int(environment.get("MAX_RESTARTS", "0")) > 0 and bool(rendezvous)
    process = subprocess.Popen(
        [*command, "-m", "losia_cli", *arguments],
        env={**environment, _WORKER: "1"},
        start_new_session=True,
    )
    try:
        with StopTogether(process, past=not restarted):
            return process.wait()
    except Stopped:
        return EXIT_INTERRUPTED


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
