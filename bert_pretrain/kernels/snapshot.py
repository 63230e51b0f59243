"""The values that variables have after an update, for another session, while the next updates change the variables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Union

import numpy as np
import tensorflow as tf

from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.tensorflow_compat.typed import Session

_keys = itertools.count()


class SharedSnapshot:
    """References to the memory of variables whose updates are native: see native/sources/snapshot.cc."""

    def __init__(self, variables: Mapping[str, tf.Variable]) -> None:
        """Adds what takes the references to the variables' graph, the default one."""
        handles = [variable.handle for variable in variables.values()]
        self._dtypes, self._key = [variable.dtype for variable in variables.values()], next(_keys)
        self._keep = native.library().bert_pretrain_keep_snapshot(variables=handles, key=self._key)

    def tensors(self) -> list[tf.Tensor]:
        """The values, in the variables' order, in the other session's graph, the default one."""
        return native.library().bert_pretrain_take_snapshot(types=self._dtypes, key=self._key)

    def take(self, session: Session) -> dict[tf.Tensor, np.ndarray]:
        """Takes the values in the variables' session; returns the feeds with which the other session may run once."""
        session.run(self._keep)
        return {}


class CopiedSnapshot:
    """Copies in NumPy arrays: from GPUs, and of variables whose updates are not native."""

    def __init__(self, variables: Mapping[str, tf.Variable]) -> None:
        """See SharedSnapshot."""
        # Reads stand beside their variables: inside the scope below they would take the variables to the host.
        values = [one.read_value() for one in variables.values()]
        # A fetched variable may share the memory that the next update changes in place.
        with tf.device("/cpu:0"):
            self._copies = [tf.raw_ops.DeepCopy(x=value) for value in values]

    def tensors(self) -> list[tf.Tensor]:
        """See SharedSnapshot."""
        self._inputs = [tf.compat.v1.placeholder(copy.dtype) for copy in self._copies]
        return self._inputs

    def take(self, session: Session) -> dict[tf.Tensor, np.ndarray]:
        """See SharedSnapshot."""
        return dict(zip(self._inputs, session.run(self._copies)))


Snapshot = Union[SharedSnapshot, CopiedSnapshot]


def take_snapshots(variables: Mapping[str, tf.Variable], backend: Backend) -> Snapshot:
    """Takes snapshots of these variables, which kernels of this backend update."""
    return SharedSnapshot(variables) if backend is Backend.NATIVE else CopiedSnapshot(variables)
