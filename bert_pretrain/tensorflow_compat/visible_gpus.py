"""python -m bert_pretrain.tensorflow_compat.visible_gpus: may a run start here? Exit code 2 and one line if not.

It may not where the machine shows GPUs and TensorFlow sees none of them. On a machine without GPUs nothing is imported.
With --report, what TensorFlow sees is printed as JSON, and whether XLA compiles for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from bert_pretrain.system import gpus, streams
from bert_pretrain.tensorflow_compat import tensorflow_import

if TYPE_CHECKING:  # it is imported where a GPU is shown
    import tensorflow as tf

    from bert_pretrain.tensorflow_compat.typed import ConfigProto

CPU_REMEDY = "--device=cpu or CUDA_VISIBLE_DEVICES= trains on the CPU"


def visible_gpus() -> list[tf.config.PhysicalDevice]:
    """The GPUs that TensorFlow sees. ValueError where it sees none and the machine shows some."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    shown = [] if found else gpus.shown_gpus()
    if shown:
        raise ValueError(
            f"this machine has {len(shown)} GPUs ({shown[0]}), of which TensorFlow {tf.__version__} sees none: "
            f"{why_none()}; {CPU_REMEDY}"
        )
    return found


def why_none() -> str:
    """Why TensorFlow sees none of the machine's GPUs, with a remedy."""
    import tensorflow as tf

    if not tf.test.is_built_with_gpu_support():
        return "it is a build for CPUs; without .venv, bash init_tf.sh installs the one for GPUs"
    if not (tf.test.is_built_with_cuda() and gpus.are_nvidia()):
        return "its build for GPUs cannot use them, and TF_CPP_MIN_LOG_LEVEL=0 says why"
    driver = gpus.driver_problem()
    if driver:
        return driver
    missing = gpus.missing_libraries()
    if missing:
        return f"no library {', '.join(missing)} is installed; pip install 'tensorflow[and-cuda]=={tf.__version__}'"
    return "its build for GPUs cannot load their libraries, which TF_CPP_MIN_LOG_LEVEL=0 names"


def why_not_xla(session_config: Optional[ConfigProto] = None) -> Optional[str]:
    """What TensorFlow says when XLA compiles a program of two elements for this device; None where that works."""
    import tensorflow as tf

    from bert_pretrain.tensorflow_compat.typed import Session

    try:
        with tf.Graph().as_default(), Session(config=session_config) as session:
            session.run(tf.function(tf.square, jit_compile=True)(tf.constant([1.0, 2.0])))
    except tf.errors.OpError as error:
        return str(error).strip().splitlines()[0]
    return None


def _report() -> dict[str, Any]:
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return {
        "version": tf.__version__,
        "is_for_gpus": tf.test.is_built_with_gpu_support(),
        "cuda": tf.sysconfig.get_build_info().get("cuda_version") if gpus.are_nvidia() else None,
        "num_gpus": len(found),
        "why_none": None if found else why_none(),
        "why_not_xla": why_not_xla() if found else None,
    }


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    streams.secure_streams()
    is_report = "--report" in arguments
    if not (is_report or gpus.shown_gpus()):
        return 0
    try:
        with tensorflow_import.imported_quickly():
            import tensorflow  # noqa: F401
        if is_report:
            streams.print_answer(json.dumps(_report()))
        else:
            visible_gpus()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
