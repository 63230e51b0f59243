"""The training job over MPI alone, for TensorFlows that Horovod does not build on. Imports mpi4py, no Horovod.

The tensors of a collective are concatenated into one flat buffer, which MPI_Allreduce sums. With GPUs the buffer is
handed over by DLPack where the MPI is CUDA-aware, and copied to the host where it is not (neither was run on a GPU).
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.distributed.messages import decode_messages, encode_message
from bert_pretrain.distributed.world import T, World
from bert_pretrain.tensorflow_compat.typed import Coordinator, Session, SessionRunHook

_EXIT_SECONDS = 5.0  # that a rank waits for the others before it leaves without them


class MpiWorld(World):
    """One of the processes that mpirun started."""

    def __init__(self, launched_size: int) -> None:
        """ValueError if mpi4py is missing or its number of processes is not the launcher's."""
        try:
            import mpi4py

            mpi4py.rc.finalize = False  # a rank that fails must not wait for the others in MPI_Finalize; see close
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"--exchange=mpi: mpi4py cannot be imported ({error}); run: bash init_tf.sh --horovod"
            ) from None
        self._mpi, self._comm = MPI, MPI.COMM_WORLD
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        if self.size != launched_size:
            raise ValueError(
                f"--exchange=mpi: the launcher started {launched_size} processes, but mpi4py sees {self.size}: it was "
                f"built with another MPI; use the mpirun beside {sys.executable}"
            )
        local = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.Get_rank(), local.Get_size()
        self.why_through_hosts = "" if _is_cuda_aware(MPI) else "--exchange=mpi has an MPI that is not CUDA-aware"
        self._previous: Optional[tf.Tensor] = None
        atexit.register(self.close)

    def allreduce(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        if half:
            raise ValueError("--allreduce_fp16 needs --exchange=horovod: MPI alone has no float16 sum")
        dtypes = list(dict.fromkeys(tensor.dtype for tensor in tensors))
        if len(dtypes) > 1:  # a buffer holds one dtype
            parts = {dtype: iter(self.allreduce([t for t in tensors if t.dtype == dtype])) for dtype in dtypes}
            return [next(parts[tensor.dtype]) for tensor in tensors]
        shapes = [tf.shape(tensor) for tensor in tensors]
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        sums = self._sum_in_graph(flat)
        parts = tf.split(sums, [tf.reduce_prod(shape) for shape in shapes], num=len(tensors))
        whole = [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]
        return [tf.ensure_shape(value, tensor.shape) for value, tensor in zip(whole, tensors)]

    def _sum_in_graph(self, flat: tf.Tensor) -> tf.Tensor:
        """[X] float32 or int64 summed over ranks. A graph's collectives run in the order of creation, on every rank."""
        previous = self._previous
        is_same_graph = previous is not None and previous.graph is flat.graph
        with tf.control_dependencies([previous] if is_same_graph else []):
            if tf.config.list_physical_devices("GPU") and not self.why_through_hosts:
                sums = tf.py_function(self._sum_on_device, [flat], flat.dtype)
            else:
                sums = tf.numpy_function(self._sum, [flat], flat.dtype)
        sums.set_shape(flat.shape)
        self._previous = sums
        return sums

    def _sum(self, values: np.ndarray) -> np.ndarray:
        total = np.empty_like(values)
        self._comm.Allreduce(values, total)
        return total

    def _sum_on_device(self, values: tf.Tensor) -> tf.Tensor:
        """The same in the GPU's memory. Not run on a GPU."""
        total = tf.identity(values)
        tf.test.experimental.sync_devices()  # MPI does not know TensorFlow's streams
        self._comm.Allreduce(self._mpi.IN_PLACE, _DLPack(total))
        return total

    def host_allreduce(self, numbers: np.ndarray) -> np.ndarray:
        return self._sum(np.asarray(numbers, np.float64))

    def allgather(self, value: T) -> list[T]:
        message, sizes = encode_message(value), np.empty(self.size, np.int64)
        self._comm.Allgather(np.array([len(message)], np.int64), sizes)
        gathered = np.empty(sizes.sum(), np.uint8)
        self._comm.Allgatherv(message, [gathered, sizes.tolist()])
        return decode_messages(gathered, sizes)

    def hooks(self) -> list[SessionRunHook]:
        return [_BroadcastHook(self._broadcast_array)]

    def _broadcast_array(self, values: np.ndarray) -> np.ndarray:
        buffer = np.array(values)
        self._comm.Bcast(buffer, root=0)
        return buffer

    def close(self) -> None:
        """Finalizes MPI if all ranks come here within seconds; else leaves at once, so that mpirun ends the others."""
        if self._mpi.Is_finalized():
            return
        barrier, deadline = self._comm.Ibarrier(), time.monotonic() + _EXIT_SECONDS
        while not barrier.Test():
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        self._mpi.Finalize()


class _BroadcastHook(SessionRunHook):
    """Gives every rank root's values of all variables, one variable at a time."""

    def __init__(self, broadcast: Callable[[np.ndarray], np.ndarray]) -> None:
        self._broadcast = broadcast
        self._assignments: list[tf.Operation] = []

    def begin(self) -> None:
        """Builds an assignment for each variable."""
        for variable in tf.compat.v1.global_variables():
            value = tf.numpy_function(self._broadcast, [variable.read_value()], variable.dtype.base_dtype)
            self._assignments.append(variable.assign(tf.ensure_shape(value, variable.shape)).op)

    def after_create_session(self, session: Session, coord: Coordinator) -> None:
        """Runs them in the same order on every rank."""
        for assignment in self._assignments:
            session.run(assignment)


class _DLPack:
    """A tensor as mpi4py takes buffers of any device."""

    def __init__(self, tensor: tf.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, stream: Any = None) -> Any:
        return tf.experimental.dlpack.to_dlpack(self._tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        device = tf.DeviceSpec.from_string(self._tensor.device)
        return (2, device.device_index) if device.device_type == "GPU" else (1, 0)  # kDLCUDA, kDLCPU


def _is_cuda_aware(mpi: Any) -> bool:
    """Whether the MPI can read GPU memory, as far as Open MPI's build or MPICH's setting says."""
    return "cuda" in mpi.Get_library_version().lower() or os.environ.get("MPICH_GPU_SUPPORT_ENABLED") == "1"
