"""scripts/pretrain_text.sh on a small folder: through to a model, again, and with other flags."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
from safetensors.numpy import load_file, save_file

from bert_pretrain.system.files import cache_directory

ROOT = Path(__file__).parents[2]
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()
CACHE = str(cache_directory(""))  # else the copied scripts would compile kernels for themselves
FLAGS = ("--model_size=tiny", "--num_train_steps=4", "--train_batch_size=4", "--documents=blank_line")

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex (--data)")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess]:
    """Runs the script in a folder with text/; a stand-in for init_tf.sh names this Python."""
    folder = tmp_path_factory.mktemp("pretrain")
    project = folder / "a project"
    for name in ("scripts", "configs"):
        shutil.copytree(ROOT / name, project / name)
    (project / "init_tf.sh").write_text(f"echo {sys.executable}\n")
    rng = random.Random(0)
    (folder / "text").mkdir()
    for number in range(3):
        documents = [". ".join(" ".join(rng.choices(WORDS, k=9)).capitalize() for _ in range(9)) for _ in range(9)]
        (folder / "text" / f"{number}.txt").write_text("\n\n".join(documents))

    def run_script(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            ["bash", str(project / "scripts" / "pretrain_text.sh"), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "BERT_PRETRAIN_CACHE": CACHE, **environ},
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
        done.folder = folder
        return done

    return run_script


@pytest.fixture(scope="module")
def made(run: Callable[..., subprocess.CompletedProcess]) -> subprocess.CompletedProcess:
    """The first start of the command."""
    return run("text", "out", *FLAGS)


def test_a_folder_becomes_a_model(made) -> None:
    assert made.returncode == 0, made.stdout + made.stderr
    out = made.folder / "out"
    assert json.loads((out / "run" / "results.json").read_text())["updates"] == 4
    assert {"config.json", "model.safetensors", "vocab.txt"} <= {path.name for path in (out / "model").iterdir()}
    told = made.stdout
    for line in ("verdict: sound", "model: 2 layers x 128", "expected: ", "  --learning_rate=0.002", "| completed |"):
        assert line in told, line
    assert told.index("expected: ") < told.index("evaluation after update 0")
    sentences = told.partition("the word that stood there, and the model's best words:\n")[2].splitlines()
    assert sentences[0].count("[MASK]") == 1 and sentences[1].count(",") == 4
    assert not (out / "recipe" / "speed").exists()


def test_the_same_command_again_keeps_everything(made, run) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made.folder / "out").rglob("*") if path.is_file()}
    again = run("text", "out", *FLAGS)
    assert again.returncode == 0, again.stderr
    assert "out/run holds this run, finished at update 4" in again.stdout
    changed = {path.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed <= {"data.flags", "text.flags", "manifest.json", "metrics.jsonl", "bert_dllog.json"}


def test_another_command_on_the_folder_is_refused(made, run) -> None:
    other = run("text", "out", *FLAGS, "--learning_rate=1")
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr == (
        "error: out was begun with no --learning_rate, this command has --learning_rate=1.0; give the same flags "
        "(out/command.json has them), or name another folder\n"
    )
    (made.folder / "text 2").mkdir()
    assert f"was begun with text {made.folder}/text, this command has" in run("text 2", "out", *FLAGS).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "new"], "nowhere: no such folder"),
        (["text", "text"], "text: the folder holds something else"),
        (["text", "new", "--hours=0"], "--hours must be above 0"),
        (
            ["text", "new", "--input_files_dir=x"],
            "--input_files_dir is no flag of this command: scripts/",
        ),
        (["text", "new", "--from=nowhere"], "--from: nowhere: no such folder"),
        (["text", "new", "--max_seq_length=1024"], "--max_seq_length must be 5 to 512 here"),
        (["text", "new", "--max_restarts=1"], "--max_restarts belongs to the launcher of several processes"),
        (["text", "new", "--rejoin_seconds=-1"], "--rejoin_seconds must be at least 0, got -1"),
        (["text", "new", "--learning_rate=-1"], "--learning_rate must be at least 0, got -1"),
        (["text", "new", "--dupe_factor=0"], "--dupe_factor must be at least 1, got 0"),
        (["text", "new", "--language=xx"], "--language=xx is not known"),
        (["text", "new", "--stop_threshold=2"], "--stop_threshold must be in [0, 1], got 2"),
        (["text", "new", "more"], "expected a folder of text and a folder for the model, got text new more"),
    ],
)
def test_what_cannot_be_is_one_line(run, arguments: list[str], message: str) -> None:
    refused = run(*arguments)
    assert refused.returncode == 2 and refused.stdout == ""
    assert message in refused.stderr and refused.stderr.count("\n") == 1
    assert not (refused.folder / "new").exists()


@pytest.mark.parametrize("environ", [{"NUM_HELD_OUT": "0"}, {"VOCAB_FILE": "vocab.txt"}, {"NUM_SHARDS": "many"}])
def test_what_a_later_step_would_refuse_is_refused_before_the_first(run, environ: dict[str, str]) -> None:
    refused = run("text", "not begun", **environ)
    assert refused.returncode == 2 and refused.stderr.count("error: ") == 1
    assert next(iter(environ)) in refused.stderr
    assert not (refused.folder / "not begun" / "data").exists()


def test_a_model_is_continued_with_its_own_vocabulary(made, run) -> None:
    """Up to the first step, which fails; what follows does not differ from a new model's but for --init_checkpoint."""
    stopped = run("text", "continued", "--from=out/model", *FLAGS[1:], TEXT_FLAGS="--held_out=none")
    assert stopped.returncode == 2 and "held_out" in stopped.stderr
    vocabularies = [(made.folder / name / "vocab.txt").read_bytes() for name in ("out/model", "continued/data")]
    assert vocabularies[0] == vocabularies[1]
    assert "--do_lower_case=True" in (made.folder / "continued" / "recipe" / "data.flags").read_text()
    command = json.loads((made.folder / "continued" / "command.json").read_text())
    assert command["flags"]["init_checkpoint"] == "out/model"


def test_single_sequences_are_trained_without_the_next_sentence_task(run) -> None:
    """Up to the first step, which fails."""
    stopped = run("text", "single", "--single_sequence", *FLAGS, TEXT_FLAGS="--held_out=none")
    assert stopped.returncode != 0
    flags = json.loads((stopped.folder / "single" / "command.json").read_text())["flags"]
    assert flags["single_sequence"] is True and flags["next_sentence_weight"] == 0
    assert "--single_sequence=True" in (stopped.folder / "single" / "recipe" / "data.flags").read_text()


def test_a_model_without_heads_is_told_before_the_work(made, run) -> None:
    shutil.copytree(made.folder / "out" / "model", made.folder / "headless")
    weights = str(made.folder / "headless" / "model.safetensors")
    save_file({name: value for name, value in load_file(weights).items() if name.startswith("bert.")}, weights)
    refused = run("text", "headless out", "--from=headless")
    assert refused.returncode == 2 and not (made.folder / "headless out").exists()
    assert refused.stderr.startswith(
        "error: --from: headless/model.safetensors lacks heads of BertForPreTraining (cls/"
    )
    Path(weights).unlink()
    assert "save the model with safe_serialization=True" in run("text", "headless out", "--from=headless").stderr


def test_ranks_are_started_by_the_launcher(run) -> None:
    shown = run("text", "dry", "--hours=1", "--max_restarts=3", NP="2", DRY_RUN="1")
    assert shown.returncode == 0, shown.stderr
    commands = shown.stdout.splitlines()
    assert all("-m bert_pretrain.make_data " in line for line in commands[1:5])
    assert commands[-2].endswith("-m bert_pretrain.launch --flagfile=dry/recipe/speed.flags")
    assert commands[-1].endswith(
        "-m bert_pretrain.launch --flagfile=dry/recipe/train.flags --max_restarts=3 --rejoin_seconds=10"
    )
    assert not (shown.folder / "dry").exists()


def test_the_launchers_flags_may_differ_from_start_to_start(run) -> None:
    for restarts in ("3", "4"):
        stopped = run("text", "ranks out", f"--max_restarts={restarts}", NP="2", TEXT_FLAGS="--held_out=none")
        assert "held_out" in stopped.stderr, "it is refused by the first step, not before"


def test_help_lists_the_flags(run) -> None:
    shown = run("--help")
    assert shown.returncode == 0 and "--hours=FLOAT" in shown.stdout and "--language=STR" in shown.stdout
    assert run("text").returncode == 2
