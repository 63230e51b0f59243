"""How entry points import TensorFlow: without its messages, without Keras, and faster. Standard library only."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
from collections.abc import Iterator

from bert_pretrain.system import gpus, streams

_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"


@contextlib.contextmanager
def imported_quickly() -> Iterator[None]:
    """Inside, where TensorFlow is imported, it prints nothing that says nothing about this run, and loads no Keras.

    Hundreds of thousands of objects are created and none is dropped, so garbage is not looked for, neither during the
    import nor among these objects later. ValueError where there is too little memory for it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A GPU that is newer than the wheel has its kernels compiled at the first start; CUDA's default cache is too small.
    os.environ.setdefault("CUDA_CACHE_MAXSIZE", str(4 * 2**30))
    _add_xla_flag("--xla_allow_excess_precision=false")
    gpus.load_cusolver()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        # absl's testing, which TensorFlow imports, would look for a temporary folder, and a machine may have none.
        with streams.without_import_lines(), _without_keras(), _variable("TEST_TMPDIR", os.curdir):
            yield
        gc.freeze()
    except ImportError as error:
        if "failed to map segment" not in str(error):
            raise
        reason = str(error).splitlines()[-1]
        raise ValueError(f"memory is too little to load TensorFlow ({reason}); ulimit -v may limit it") from None
    finally:
        if was_enabled:
            gc.enable()


def _add_xla_flag(flag: str) -> None:
    """Without it, XLA keeps in float32 what is rounded to 16 bits only to be kept: twice the memory on GPUs."""
    given = os.environ.get("XLA_FLAGS", "")
    if flag.partition("=")[0] not in given:
        os.environ["XLA_FLAGS"] = f"{given} {flag}".strip()


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keras is a third of the import. TensorFlow loads it early unless told that tf_keras is to be used, if installed.

    tf.keras still loads Keras where somebody uses it. Old versions' tf.estimator needs it at once.
    """
    if any(map(importlib.util.find_spec, ("tf_keras", "tensorflow_estimator"))):
        yield
        return
    with _variable(_LEGACY_KERAS, "1"):
        yield


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Inside, an environment variable has this value, or the one that it had before."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
