"""What an entry point's import of TensorFlow loads, and that it changes nothing else."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_PROGRAM = """
import gc, os, sys
from bert_pretrain.tensorflow_compat import tensorflow_import
with tensorflow_import.imported_quickly():
    import tensorflow as tf
print("keras" in sys.modules, "TF_USE_LEGACY_KERAS" in os.environ, gc.isenabled())
print(tf.keras.layers.Dense.__name__)
"""


@pytest.mark.skipif(
    any(map(importlib.util.find_spec, ("tf_keras", "tensorflow_estimator"))) or not importlib.util.find_spec("keras"),
    reason="this TensorFlow needs Keras at once, or Keras is not installed",
)
def test_keras_is_loaded_only_where_it_is_used() -> None:
    """Also where no file, and so no temporary folder, can be made."""
    command = ["bash", "-c", 'ulimit -f 0; "$@"', "bash", sys.executable, "-c", _PROGRAM]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["False False True", "Dense"] and ended.stderr == ""


def test_cusolver_is_loaded_where_its_wheel_is_installed(tmp_path: Path) -> None:
    libraries = Path(sysconfig.get_paths()["platlib"], "numpy.libs").glob("libquadmath*")
    library = next(libraries, None) or pytest.skip("this NumPy brings no small shared library to stand for it")
    folder = tmp_path / "nvidia" / "cusolver" / "lib"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "libcusolver.so.11").write_bytes(library.read_bytes())
    program = "from bert_pretrain.system import gpus; gpus.load_cusolver()"
    shown = f"{program}\nprint('libcusolver.so.11' in open('/proc/self/maps').read())"
    for path, is_loaded in (("", False), (str(tmp_path), True)):
        environ = {**os.environ, "PYTHONPATH": path}
        ended = subprocess.run([sys.executable, "-c", shown], env=environ, capture_output=True, text=True, check=True)
        assert ended.stdout == f"{is_loaded}\n"


def test_too_little_memory_for_the_import_is_told() -> None:
    command = ["bash", "-c", 'ulimit -v 500000; "$@"', "bash", sys.executable, "-c", _PROGRAM]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "ValueError: memory is too little to load TensorFlow (" in ended.stderr
