"""Examples from their first command to their table, at a size that takes seconds."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from bert_pretrain.hugging_face import names
from bert_pretrain.model import variables
from bert_pretrain.system import files
from tests.references import random_examples
from tests.references.random_examples import TINY

ROOT = Path(__file__).parents[2]


def needs(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: bash init_tf.sh --data --horovod --interop")


@pytest.fixture(name="run")
def _run(tmp_path: Path):
    """Runs an example's run.sh in a copy of the project whose init_tf.sh names this Python."""
    project = tmp_path / "a project"
    for name in ("configs", "examples", "scripts"):
        shutil.copytree(ROOT / name, project / name)
    (project / "init_tf.sh").write_text(f'echo init_tf.sh "$@" >&2; echo {sys.executable}\n')

    def run(example: str, **sizes: str) -> str:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "NP": "1"}
        environ["BERT_PRETRAIN_CACHE"] = str(files.cache_directory("kernels").parent)  # with kernels that are compiled
        command = ["bash", str(project / "examples" / example / "run.sh"), "out"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**environ, **sizes}, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.interop
@pytest.mark.slow
def test_own_text(run, tmp_path: Path) -> None:
    needs("sentencex", "bs4", "h5py", "torch", "transformers")
    sizes = {"PACKAGES": "bs4 h5py", "UPDATES": "2", "LABELS": "2", "SEEDS": "2", "EPOCHS": "1"}
    printed = run("own_text", **sizes)
    labelled = [json.loads(line) for line in (tmp_path / "out/labelled/test.jsonl").read_text().splitlines()]
    assert {example["label"] for example in labelled} == {"bs4", "h5py"}
    text = "".join(path.read_text() for path in (tmp_path / "out/text").rglob("*.txt"))
    assert not [example for example in labelled if example["text"] in " ".join(text.split())]
    assert re.search(r"^\| pretrained on the text \| \d+\.\d ± \d+\.\d \|$", printed, re.MULTILINE), printed
    assert "largest difference of a logit" in printed


def model_folder(folder: Path) -> str:
    """A Hugging Face folder of a small BERT without heads, whose vocabulary is letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    config = dataclasses.replace(TINY, vocab_size=len(entries), max_position_embeddings=64)
    weights = random_examples.weights(variables.variable_shapes(config))
    bare = {
        names.hugging_face_name(name)[len("bert.") :]: names.convert_value(name, value)
        for name, value in weights.items()
        if name.startswith("bert/")
    }
    folder.mkdir()
    save_file(bare, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "vocab.txt").write_text("\n".join(entries) + "\n")
    (folder / "config.json").write_text(json.dumps({**vars(config), "model_type": "bert"}))
    return str(folder)


@pytest.mark.slow
def test_continue_pretrained(run, tmp_path: Path) -> None:
    needs("sentencex", "bs4")
    printed = run("continue_pretrained", PACKAGE="bs4", UPDATES="2", MODEL=model_folder(tmp_path / "model"))
    assert "| weights at the start | 0 | 2 |" in printed
    assert re.search(
        r"^\| continued \| \d+\.\d \| \d+\.\d \|\n\| random \| \d+\.\d \| \d+\.\d \|$", printed, re.MULTILINE
    )
