"""The training job as one rank sees it. The only importer of Horovod.

One process is a world of size one, so no call site asks whether Horovod is there. In the graph, `sum` is the one
exchange; on the host, numbers and small objects are exchanged between the session's runs.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from bert_pretrain import processes

# A rank that does not come to an exchange is named after the first and ends the job after the second; 0 means never.
_STALL_SECONDS = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "600"}
# Horovod's threads meet in MPI every millisecond. Without this they wait by spinning, and where ranks fill all cores
# they spin on those that compute.
_YIELD = {"OMPI_MCA_mpi_yield_when_idle": "1"}
_LARGEST_HALF = 2.0**15  # half of what float16 holds, so that the sum of rounded numbers stays finite
_LAST_WORDS_SECONDS = 5.0


class World:
    """A job of one process; HorovodWorld overrides every method."""

    rank, size = 0, 1
    local_rank, local_size = 0, 1  # among the ranks of this machine

    @property
    def is_root(self) -> bool:
        """True on the one rank that writes files and talks to the person."""
        return self.rank == 0

    def allreduce(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        """In the graph: each float32 tensor summed over ranks, all in one exchange; half sends float16."""
        return tensors

    def host_allreduce(self, numbers: np.ndarray) -> np.ndarray:
        """On the host: float64 numbers [X] summed over ranks. A collective: every rank must call it."""
        return numbers

    def allgather(self, value: Any) -> list[Any]:
        """On the host: every rank's value (anything that pickles), by rank. A collective."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """On the host: root's value, on every rank. A collective."""
        return self.allgather(value)[0]

    def hooks(self) -> list[tf.compat.v1.train.SessionRunHook]:
        """Hooks that make all ranks start from root's variables."""
        return []

    def close(self) -> None:
        """Leaves the job in good order; every rank must get here."""


class HorovodWorld(World):
    """One of the processes that mpirun or horovodrun started."""

    def __init__(self, launched_size: int) -> None:
        """ValueError where Horovod is missing, or does not see the processes that the launcher started."""
        for name, seconds in {**_STALL_SECONDS, **_YIELD}.items():
            os.environ.setdefault(name, seconds)
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise ValueError(
                f"--horovod: Horovod cannot be imported ({error}); run: bash init_tf.sh --horovod"
            ) from None
        hvd.init()
        if hvd.size() != launched_size:
            raise ValueError(
                f"--horovod: the launcher started {launched_size} processes, but Horovod sees {hvd.size()}: it was "
                f"built with another MPI; use the mpirun beside {sys.executable}"
            )
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self._exchanges = _HostExchanges(hvd)
        seconds = [float(os.environ[name]) for name in _STALL_SECONDS]
        processes.Watch(self.allgather(processes.this_process()), self.rank, *seconds).start()

    def allreduce(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        if not half:
            return self._hvd.grouped_allreduce(tensors, op=self._hvd.Sum)
        # The ranks' largest values added up bound every sum. Scaled to that bound nothing overflows, and what float16
        # cannot hold is less than 2^-39 of it.
        largest = tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(tensor)) for tensor in tensors]))
        bound = self._hvd.allreduce(largest, op=self._hvd.Sum)
        scale = tf.where(bound > 0.0, _LARGEST_HALF / bound, 1.0)
        halves = [tf.cast(tensor * scale, tf.float16) for tensor in tensors]
        sums = self._hvd.grouped_allreduce(halves, op=self._hvd.Sum)
        return [tf.cast(total, tf.float32) / scale for total in sums]

    def host_allreduce(self, numbers: np.ndarray) -> np.ndarray:
        return self._exchanges.sum(numbers)

    def allgather(self, value: Any) -> list[Any]:
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self._exchanges.gather(np.array([len(data)], np.int64))
        parts = np.split(self._exchanges.gather(data), np.cumsum(sizes)[:-1])
        return [pickle.loads(part.tobytes()) for part in parts]

    def hooks(self) -> list[tf.compat.v1.train.SessionRunHook]:
        return [self._hvd.BroadcastGlobalVariablesHook(0)]

    def close(self) -> None:
        self._hvd.shutdown()


class _HostExchanges:
    """Collectives on NumPy arrays through a small graph and session of their own.

    The training session's graph is finished when these are needed, and Horovod knows graph operations only.
    """

    def __init__(self, hvd: Any) -> None:
        self._graph = tf.Graph()
        with self._graph.as_default(), tf.device("/cpu:0"):
            self._numbers = tf.compat.v1.placeholder(tf.float64, [None])
            self._sum = hvd.allreduce(self._numbers, op=hvd.Sum, name="host_sum")
            self._inputs = {t: tf.compat.v1.placeholder(t, [None]) for t in (tf.uint8, tf.int64)}
            self._gathers = {t: hvd.allgather(x, name=f"host_gather_{t.name}") for t, x in self._inputs.items()}
        # One thread and no card: this session must not claim what the training session needs.
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0}, use_per_session_threads=True)
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = 1
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        return self._session.run(self._sum, {self._numbers: numbers})

    def gather(self, values: np.ndarray) -> np.ndarray:
        kind = tf.as_dtype(values.dtype)
        return self._session.run(self._gathers[kind], {self._inputs[kind]: values})


@contextlib.contextmanager
def connected(use_horovod: bool) -> Iterator[World]:
    """The world that --horovod asks for, left in good order at the end.

    ValueError where the launcher and the flag contradict each other. Where other ranks broke off an exchange, the
    process ends here, with exit code 1.
    """
    world = _connect(use_horovod)
    try:
        yield world
    except tf.errors.OpError as error:
        if "Horovod" not in str(error):
            raise
        _end_alone(world.rank, error)
    world.close()


def _connect(use_horovod: bool) -> World:
    size = processes.launched_size()
    if use_horovod and size is None:
        raise ValueError(
            "--horovod: not started by mpirun or horovodrun; use scripts/run_multi_card_FPS.sh, "
            "or mpirun -np N python -m bert_pretrain.run --horovod ..., or leave --horovod out"
        )
    if not use_horovod and size is not None and size > 1:
        raise ValueError(
            f"started by mpirun as one of {size} processes but without --horovod: each would train alone into "
            f"the same directory; add --horovod"
        )
    return HorovodWorld(size) if use_horovod else World()


def _end_alone(rank: int, error: tf.errors.OpError) -> None:
    """Ends the process after others broke off an exchange."""
    # A rank that ended by itself has said why, and its exit code is to be the job's: the launcher gets time to see it.
    time.sleep(_LAST_WORDS_SECONDS)
    reason = str(error).partition("[[")[0].strip().splitlines()[-1]  # what follows names nodes of the graph
    print(
        f"error: rank {rank} waited for an exchange that other ranks broke off or did not come to; where lines above "
        f"name missing ranks, it was those ({reason})",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)  # Horovod's orderly end waits for all ranks
