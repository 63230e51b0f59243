"""Joins the job that the launcher started: one process, Horovod's ranks, or MPI's ranks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from typing import NoReturn, Optional

import tensorflow as tf

from bert_pretrain.distributed.mpi_world import MpiWorld
from bert_pretrain.distributed.rank_watch import watching_ranks
from bert_pretrain.distributed.stop import StopRequest
from bert_pretrain.distributed.world import HorovodWorld, World
from bert_pretrain.system import processes

_SECONDS_FOR_OTHER_RANKS_TO_EXIT = 5.0


@contextlib.contextmanager
def connected(
    use_horovod: bool, exchange: Optional[str] = None, stop: Optional[StopRequest] = None, heartbeat_seconds: int = 0
) -> Iterator[World]:
    """The world that --horovod and --exchange ask for, closed at the end. stop: where signals to this process arrive.

    ValueError if the launcher and the flag contradict each other. If a collective fails because another rank exited,
    the process ends here with exit code 1; if another host is silent for heartbeat_seconds, with rank_watch.LOST_HOST.
    """
    world = _connect(use_horovod, exchange)
    world.stop = stop or StopRequest()
    with watching_ranks(world.allgather, world.rank, world.size, heartbeat_seconds):
        world.stop.is_awaited = False
        try:
            yield world
        except tf.errors.OpError as error:
            if "Horovod" not in str(error):
                raise
            _exit_after_failed_collective(world.rank, error)
        world.close()


def _connect(use_horovod: bool, exchange: Optional[str]) -> World:
    size = processes.launched_size()
    if not use_horovod:
        if size is not None and size > 1:
            raise ValueError(
                f"started by mpirun as one of {size} processes but without --horovod: each would train alone into "
                f"the same directory; add --horovod"
            )
        return World()
    if size is None:
        raise ValueError(
            "--horovod: not started by mpirun or horovodrun; use scripts/run_multi_card_FPS.sh, "
            "or mpirun -np N python -m bert_pretrain.run --horovod ..., or leave --horovod out"
        )
    if exchange is None:
        exchange = "horovod" if importlib.util.find_spec("horovod") or not importlib.util.find_spec("mpi4py") else "mpi"
    return HorovodWorld(size) if exchange == "horovod" else MpiWorld(size)


def _exit_after_failed_collective(rank: int, error: tf.errors.OpError) -> NoReturn:
    # A rank that failed by itself printed the cause, and its exit code must become the job's. The launcher takes the
    # first exit code that it sees, so this rank waits.
    time.sleep(_SECONDS_FOR_OTHER_RANKS_TO_EXIT)
    reason = str(error).partition("[[")[0].strip().splitlines()[-1]  # names of graph nodes follow
    print(
        f"error: rank {rank}: a collective failed: another rank exited or never joined; lines above that name missing "
        f"ranks name the cause ({reason})",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)  # an orderly exit would wait for all ranks in Horovod's shutdown
