"""The SavedModel in a process that cannot import this package, and as TensorFlow Serving's tool lists it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.export.conftest import Exported

ASK = """
import sys
sys.path = [path for path in sys.path if path]
sys.modules["bert_pretrain"] = None
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
ids = tf.constant([[2, 40, 4, 3]], tf.int32)
inputs = {"input_word_ids": ids, "input_mask": tf.ones_like(ids), "input_type_ids": tf.zeros_like(ids)}
print(loaded.signatures["serving_default"](**inputs)["pooled_output"].shape)
print(loaded.signatures["fill_mask"](**inputs)["logits"].shape)
"""


def run(*command: str, cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=300).stdout


def test_it_answers(exported: Exported, tmp_path: Path) -> None:
    assert run(sys.executable, "-c", ASK, exported.saved_model_dir, cwd=tmp_path).split("\n")[:2] == [
        "(1, 32)",
        "(1, 4, 97)",
    ]


def test_its_signatures_are_listed(exported: Exported, tmp_path: Path) -> None:
    tool = str(Path(sys.executable).with_name("saved_model_cli"))
    arguments = ("--tag_set", "serve", "--signature_def", "serving_default")
    text = run(tool, "show", "--dir", exported.saved_model_dir, *arguments, cwd=tmp_path)
    for name in ("input_word_ids", "input_mask", "input_type_ids"):
        assert f"inputs['{name}']" in text
    for name in ("pooled_output", "sequence_output", "default"):
        assert f"outputs['{name}']" in text
