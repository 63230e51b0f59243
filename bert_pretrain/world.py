"""The training job as one rank sees it. The only importer of Horovod.

One process is a world of size one, so no call site asks whether Horovod is there. In the graph, `sum` is the one
exchange; on the host, numbers and small objects are exchanged between the session's runs.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import tensorflow as tf

# Environment variables by which a launcher tells a process how many there are: Open MPI, MPICH and Slurm's PMI,
# horovodrun with Gloo.
_LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")
_STALL_WARNING_SECONDS, _STALL_END_SECONDS = "60", "600"


class World:
    """A job of one process; HorovodWorld overrides every method."""

    rank, size, local_rank = 0, 1, 0

    @property
    def is_root(self) -> bool:
        """True on the one rank that writes files and talks to the person."""
        return self.rank == 0

    def sum(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        """In the graph: each tensor summed over ranks, all in one exchange; half sends float16."""
        return tensors

    def sum_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """On the host: float64 numbers [X] summed over ranks. A collective: every rank must call it."""
        return numbers

    def gather(self, value: Any) -> list[Any]:
        """On the host: every rank's value (anything that pickles), by rank. A collective."""
        return [value]

    def agree(self, value: Any) -> Any:
        """On the host: root's value, on every rank. A collective."""
        return self.gather(value)[0]

    def hooks(self) -> list[tf.estimator.SessionRunHook]:
        """Hooks that make all ranks start from root's variables."""
        return []

    def close(self) -> None:
        """Leaves the job in good order; every rank must get here."""


class HorovodWorld(World):
    """One of the processes that mpirun or horovodrun started."""

    def __init__(self) -> None:
        # A rank that does not come to an exchange is named after a minute and ends the job after ten.
        os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", _STALL_WARNING_SECONDS)
        os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", _STALL_END_SECONDS)
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise ValueError(
                f"--horovod: Horovod cannot be imported ({error}); run: bash init_tf.sh --horovod"
            ) from None
        hvd.init()
        self._hvd = hvd
        self.rank, self.size, self.local_rank = hvd.rank(), hvd.size(), hvd.local_rank()
        self._exchanges = _HostExchanges(hvd)

    def sum(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        compression = self._hvd.Compression.fp16 if half else self._hvd.Compression.none
        return self._hvd.grouped_allreduce(tensors, op=self._hvd.Sum, compression=compression)

    def sum_numbers(self, numbers: np.ndarray) -> np.ndarray:
        return self._exchanges.sum(numbers)

    def gather(self, value: Any) -> list[Any]:
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self._exchanges.gather(np.array([len(data)], np.int64))
        parts = np.split(self._exchanges.gather(data), np.cumsum(sizes)[:-1])
        return [pickle.loads(part.tobytes()) for part in parts]

    def hooks(self) -> list[tf.estimator.SessionRunHook]:
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


def connect(use_horovod: bool) -> World:
    """The world that --horovod asks for. ValueError where the launcher and the flag contradict each other."""
    sizes = [int(os.environ[name]) for name in _LAUNCHER_SIZES if name in os.environ]
    if use_horovod and not sizes:
        raise ValueError(
            "--horovod: not started by mpirun or horovodrun; use scripts/run_multi_card_FPS.sh, "
            "or mpirun -np N python -m bert_pretrain.run --horovod ..., or leave --horovod out"
        )
    if not use_horovod and max(sizes, default=1) > 1:
        raise ValueError(
            f"started by mpirun as one of {max(sizes)} processes but without --horovod: each would train alone into "
            f"the same directory; add --horovod"
        )
    return HorovodWorld() if use_horovod else World()
