"""The training job as one rank sees it. Only this module imports Horovod.

One process is a world of size one, so no caller tests for Horovod. `allreduce` adds operations to the training graph.
The other collectives exchange numbers and small objects on the host, between two runs of the training session.
"""

from __future__ import annotations

import os
import sys
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from bert_pretrain.distributed.messages import decode_messages, encode_message
from bert_pretrain.distributed.rank_watch import STALL_SECONDS
from bert_pretrain.distributed.stop import StopRequest
from bert_pretrain.tensorflow_compat.typed import ConfigProto, Coordinator, Session, SessionRunHook

T = TypeVar("T")

# Horovod's threads call MPI every millisecond. By default they spin while they wait; with as many ranks as cores that
# takes CPU time from the ranks that compute.
_YIELD = {"OMPI_MCA_mpi_yield_when_idle": "1"}
_LARGEST_HALF = 2.0**15  # half of float16's largest number, so that the sum of rounded numbers stays finite


class World:
    """A job of one process; HorovodWorld overrides every method."""

    rank, size = 0, 1
    local_rank, local_size = 0, 1  # among the ranks of this machine
    why_through_hosts = ""  # why GPUs' gradients go through the memory of the hosts, where they do
    stop = StopRequest()  # whether this process was asked to stop; connection.py sets the one that listens

    @property
    def is_root(self) -> bool:
        """True on the one rank that writes files and prints."""
        return self.rank == 0

    def allreduce(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        """In the graph: each float32 or int64 tensor summed over ranks, in one exchange; half=True sends float16."""
        return tensors

    def host_allreduce(self, numbers: np.ndarray) -> np.ndarray:
        """On the host: float64 numbers [X] summed over ranks. A collective: every rank must call it."""
        return numbers

    def allgather(self, value: T) -> list[T]:
        """On the host: every rank's value (as encode_message takes it), in the order of ranks. A collective."""
        return [value]

    def broadcast(self, value: T) -> T:
        """On the host: root's value, on every rank. A collective."""
        return self.allgather(value)[0]

    def hooks(self) -> list[SessionRunHook]:
        """Hooks that broadcast root's variables to all ranks at the start."""
        return []

    def close(self) -> None:
        """Leaves the job. A collective."""


class HorovodWorld(World):
    """One of the processes that mpirun or horovodrun started."""

    def __init__(self, launched_size: int) -> None:
        """ValueError if Horovod is missing or its number of processes is not the launcher's."""
        for name, value in {**STALL_SECONDS, **_YIELD}.items():
            os.environ.setdefault(name, value)
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise ValueError(
                f"--horovod: Horovod cannot be imported ({error}); bash init_tf.sh --horovod compiles it, which needs "
                "g++ and make (Debian and Ubuntu: apt-get install g++ make)"
            ) from None
        hvd.init()
        if hvd.size() != launched_size:
            raise ValueError(
                f"--horovod: the launcher started {launched_size} processes, but Horovod sees {hvd.size()}: it was "
                f"built with another MPI; use the mpirun beside {sys.executable}"
            )
        self._hvd: Any = hvd  # Horovod has no types
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self.why_through_hosts = "" if hvd.nccl_built() else "Horovod was built without NCCL"
        self._host = _HostCollectives(hvd)

    def allreduce(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        if not half:
            return self._hvd.grouped_allreduce(tensors, op=self._hvd.Sum)
        # The sum of the ranks' largest magnitudes bounds every element of the result. Values scaled by that bound
        # do not overflow in float16, and what underflows is smaller than 2^-39 of the bound.
        largest = tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(tensor)) for tensor in tensors]))
        bound = self._hvd.allreduce(largest, op=self._hvd.Sum)
        scale = tf.where(bound > 0.0, _LARGEST_HALF / bound, 1.0)
        halves = [tf.cast(tensor * scale, tf.float16) for tensor in tensors]
        sums = self._hvd.grouped_allreduce(halves, op=self._hvd.Sum)
        return [tf.cast(total, tf.float32) / scale for total in sums]

    def host_allreduce(self, numbers: np.ndarray) -> np.ndarray:
        return self._host.allreduce(numbers)

    def allgather(self, value: T) -> list[T]:
        message = encode_message(value)
        sizes = self._host.allgather(np.array([len(message)], np.int64))
        return decode_messages(self._host.allgather(message), sizes)

    def hooks(self) -> list[SessionRunHook]:
        return [_BroadcastHook(self._hvd)]

    def close(self) -> None:
        self._hvd.shutdown()


class _BroadcastHook(SessionRunHook):
    """Horovod's BroadcastGlobalVariablesHook, which Horovod defines only where TensorFlow has tf.estimator."""

    def __init__(self, hvd: Any) -> None:
        self._hvd = hvd

    def begin(self) -> None:
        """Adds the broadcast to the training graph."""
        self._broadcast = self._hvd.broadcast_global_variables(0)

    def after_create_session(self, session: Session, coord: Coordinator) -> None:
        """Overwrites this rank's variables with root's."""
        session.run(self._broadcast)


class _HostCollectives:
    """Collectives on NumPy arrays, in a graph and session of their own.

    Horovod offers graph operations only, and the training session's graph is finalized when these are needed.
    """

    def __init__(self, hvd: Any) -> None:
        self._graph = tf.Graph()
        with self._graph.as_default(), tf.device("/cpu:0"):
            self._numbers = tf.compat.v1.placeholder(tf.float64, [None])
            self._sum = hvd.allreduce(self._numbers, op=hvd.Sum, name="host_sum")
            self._inputs = {t: tf.compat.v1.placeholder(t, [None]) for t in (tf.uint8, tf.int64)}
            self._gathers = {t: hvd.allgather(x, name=f"host_gather_{t.name}") for t, x in self._inputs.items()}
        # One thread and no GPU memory: the training session needs those.
        config = ConfigProto(device_count={"GPU": 0}, use_per_session_threads=True)
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = 1
        self._session = Session(graph=self._graph, config=config)

    def allreduce(self, numbers: np.ndarray) -> np.ndarray:
        """float64 numbers [X] summed over ranks."""
        return self._session.run(self._sum, {self._numbers: numbers})

    def allgather(self, values: np.ndarray) -> np.ndarray:
        """All ranks' uint8 or int64 values [X], concatenated in the order of ranks."""
        kind = tf.as_dtype(values.dtype)
        return self._session.run(self._gathers[kind], {self._inputs[kind]: values})
