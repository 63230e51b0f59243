"""Whole runs whose checkpoints are damaged, deleted, published ones, cut off by a kill, or kept out by a full disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.model import variables
from tests import small_disk
from tests.checkpoints.test_restore import DAMAGE, truncate
from tests.e2e import runs


@pytest.fixture(scope="module")
def undisturbed(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of twelve updates with checkpoints after 5, 10 and 12."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    runs.train(**data, **runs.settings(output_dir=str(output_dir)))
    return output_dir


@pytest.fixture
def resumable(undisturbed: Path, tmp_path: Path) -> Path:
    """That run as if it had been killed after its last checkpoint."""
    shutil.copytree(undisturbed, tmp_path / "out")
    (tmp_path / "out" / "results.json").unlink()
    return tmp_path / "out"


def prefix(output_dir: Path, step: int) -> str:
    return checkpoint_files.prefix_of(str(output_dir), step)


def assert_same_end(one: Path, other: Path) -> None:
    values, others = (runs.tensors(path / "model.ckpt-12") for path in (one, other))
    assert values.keys() == others.keys()
    for name in values:
        np.testing.assert_array_equal(values[name], others[name], err_msg=name)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(
    data, undisturbed: Path, resumable: Path, capsys: pytest.CaptureFixture, damage: Callable
) -> None:
    damage(prefix(resumable, 12))
    results = runs.train(**data, **runs.settings(output_dir=str(resumable)))
    out = capsys.readouterr().out
    assert out.count(f"; taking {resumable}/model.ckpt-10") == 1
    assert f"continuing {resumable}/model.ckpt-10 at update 10" in out
    assert (results["updates"], results["end"]) == (12, "completed")
    assert_same_end(undisturbed, resumable)


def test_a_restart_by_the_supervisor_takes_the_one_before(data, undisturbed: Path, tmp_path: Path) -> None:
    """The process dies after update 11, and its newest checkpoint is then damaged."""
    dying = f"""
import os, signal
if not os.path.exists({str(tmp_path / "died")!r}):
    from bert_pretrain.train.hooks import TrainingHook
    from tests.checkpoints.test_restore import truncate
    report = TrainingHook._report
    def disturbed(self, update):
        report(self, update)
        if self._step == 11:
            self._writer.finish()
            open({str(tmp_path / "died")!r}, "w").close()
            truncate({prefix(tmp_path, 10)!r})
            os.kill(os.getpid(), signal.SIGKILL)
    TrainingHook._report = disturbed
import runpy
runpy.run_module("bert_pretrain.run", run_name="__main__", alter_sys=True)
"""
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path)))
    supervised = f"""
import sys
from bert_pretrain.launch.launcher import run_with_restarts
from bert_pretrain.launch.supervisor import LaunchCommand
sys.exit(run_with_restarts(LaunchCommand([sys.executable, "-c", {dying!r}, *sys.argv[1:]], {{}}), "nothing", 1))
"""
    ended = subprocess.run(
        [sys.executable, "-c", supervised, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "restart 1 of 1 from the last checkpoint" in ended.stderr
    assert f"continuing {tmp_path}/model.ckpt-5 at update 5" in ended.stdout
    assert_same_end(undisturbed, tmp_path)


def publish(directory: Path, weights: dict[str, np.ndarray], name: str = "model.ckpt-28252") -> str:
    """A checkpoint such as Google's: weights and a step, in the directory with its file `checkpoint`."""
    tensors = {**weights, "global_step": np.int64(28252), "beta1_power": np.float32(0)}
    path = str(directory / name)
    tf.raw_ops.SaveV2(
        prefix=path, tensor_names=list(tensors), shape_and_slices=[""] * len(tensors), tensors=list(tensors.values())
    )
    checkpoint_files.write_state(str(directory), [path])
    return path


def test_a_published_checkpoint_in_output_dir_continues_as_weights(
    data, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shapes = variables.variable_shapes(ModelConfig.from_json(data["bert_config_file"]))
    weights = {name: value for name, value in runs.tensors(undisturbed / "model.ckpt-12").items() if name in shapes}
    for name in ("named", "given"):
        (tmp_path / name).mkdir()
    published = publish(tmp_path / "named", weights)
    settings = {**data, **runs.settings(keep_checkpoint_max=1)}
    runs.train(**settings, output_dir=str(tmp_path / "named"))
    out = capsys.readouterr().out
    assert f"continuing {published} as weights, from update 0" in out
    assert f"{published}: 46 of 46 variables matched" in out
    runs.train(**settings, output_dir=str(tmp_path / "given"), init_checkpoint=published)
    assert_same_end(tmp_path / "named", tmp_path / "given")
    assert checkpoint_files.has_index(published) and not checkpoint_files.has_index(prefix(tmp_path / "named", 10))
    assert "finished at update 12" in start_again(settings, tmp_path / "named", capsys)


def start_again(settings: dict[str, object], output_dir: Path, capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    runs.train(**settings, output_dir=str(output_dir))
    return capsys.readouterr().out


def test_a_published_checkpoint_is_never_overwritten(data, undisturbed: Path, tmp_path: Path) -> None:
    shapes = variables.variable_shapes(ModelConfig.from_json(data["bert_config_file"]))
    weights = {name: value for name, value in runs.tensors(undisturbed / "model.ckpt-12").items() if name in shapes}
    published = publish(tmp_path, weights, "model.ckpt-5")
    content = Path(f"{published}.data-00000-of-00001").read_bytes()
    runs.train(**data, **runs.settings(), output_dir=str(tmp_path))
    assert Path(published.replace("model", "published-model") + ".data-00000-of-00001").read_bytes() == content
    assert runs.tensors(tmp_path / "model.ckpt-5")["global_step"] == 5


def test_a_damaged_init_checkpoint_is_one_line(data, resumable: Path, tmp_path: Path) -> None:
    truncate(prefix(resumable, 12))
    for changes in ({"init_checkpoint": prefix(resumable, 12), **runs.settings()},
                    {"eval_checkpoint_path": prefix(resumable, 12), "do_eval": True}):  # fmt: skip
        with pytest.raises(ValueError, match=r"model\.ckpt-12 is damaged") as error:
            runs.train(**data, output_dir=str(tmp_path / "new"), **changes)
        assert "\n" not in str(error.value)


def test_the_best_can_be_named_by_its_directory(data, tmp_path: Path) -> None:
    settings = runs.settings(do_eval=True, samples_start_eval=30, samples_between_eval=24, stop_threshold=0.0)
    runs.train(**data, **settings, output_dir=str(tmp_path))
    evaluations = {point["update"]: point["masked_lm_accuracy"] for point in runs.metrics(tmp_path, "eval")}
    del evaluations[0]
    best = max(evaluations, key=evaluations.get)
    (held,) = checkpoint_files.prefixes(str(tmp_path / "best"))
    assert held == prefix(tmp_path / "best", best)
    directory = str(tmp_path / "best")
    for name, kind, changes in (
        ("alone", "eval_alone", {"do_eval": True, "eval_batch_size": 24, "eval_checkpoint_path": directory}),
        ("first", "eval", {**settings, "num_train_steps": 1, "init_checkpoint": directory}),
    ):
        runs.train(**data, **changes, output_dir=str(tmp_path / name))
        first, *_ = runs.metrics(tmp_path / name, kind)
        assert first["masked_lm_accuracy"] == pytest.approx(evaluations[best])


def test_killed_in_the_middle_of_a_save(data, undisturbed: Path, tmp_path: Path) -> None:
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path)))
    die = """
import os, signal
replace = os.replace
def dying(source, target):
    if target.endswith("model.ckpt-10.index"):  # its data are in place already
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = dying
"""
    assert runs.start(arguments, before=die).returncode == -9
    left = {path.name for path in tmp_path.iterdir()}
    assert {"model.ckpt-10.data-00000-of-00001", ".unpublished-model.ckpt-10"} <= left
    (tmp_path / "model.ckpt-9.data-00000-of-00001.tempstate8801166893545545875").write_text("of an earlier version")
    again = runs.start(arguments)
    assert again.returncode == 0, again.stderr
    assert f"continuing {tmp_path}/model.ckpt-5 at update 5" in again.stdout
    assert_same_end(undisturbed, tmp_path)
    held = {path.name for path in tmp_path.iterdir() if "ckpt" in path.name}
    assert held == {f"model.ckpt-{n}.{kind}" for n in (5, 10, 12) for kind in ("index", "data-00000-of-00001")}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB, which holds three checkpoints."""
    with small_disk.mounted(tmp_path / "disk", kilobytes=1024) as mounted:
        yield mounted


def filling(disk: Path, full_from: int, full_until: int) -> str:
    """Python that fills the disk after an update, but for some kilobytes, and frees it after another."""
    return f"""
import os, time
from bert_pretrain.train.hooks import TrainingHook
report = TrainingHook._report
def disturbed(self, update):
    while self._writer.is_writing:
        time.sleep(0.01)
    report(self, update)
    if self._step == {full_from}:
        free = os.statvfs({str(disk)!r}).f_bavail * os.statvfs({str(disk)!r}).f_bsize
        with open({str(disk / "ballast")!r}, "wb") as file:
            file.write(bytes(free - 100_000))
    if self._step == {full_until}:
        os.remove({str(disk / "ballast")!r})
TrainingHook._report = disturbed
"""


def test_a_full_disk_costs_checkpoints_and_no_update(data, undisturbed: Path, disk: Path) -> None:
    values = runs.settings(output_dir=str(disk), save_checkpoints_steps=2, keep_checkpoint_max=1)
    ended = runs.start(runs.flags(**data, **values), before=filling(disk, full_from=5, full_until=9))
    assert ended.returncode == 0, ended.stderr
    for number, step in enumerate((6, 8), start=1):
        line = rf"model.ckpt-{step} cannot be written: No space left .*\({number} of --max_failed_checkpoints=3 "
        assert re.search(line, ended.stderr)
    assert "Graph execution error" not in ended.stdout + ended.stderr
    assert checkpoint_files.prefixes(str(disk)) == [prefix(disk, 12)]
    assert_same_end(undisturbed, disk)


@pytest.mark.parametrize(("between", "tries"), [(2, 2), (50, 1)])
def test_a_disk_that_stays_full_ends_the_run_with_one_line(data, disk: Path, between: int, tries: int) -> None:
    """After --max_failed_checkpoints, or at the last checkpoint."""
    values = runs.settings(output_dir=str(disk), save_checkpoints_steps=between, max_failed_checkpoints=2)
    ended = runs.start(runs.flags(**data, **values), before=filling(disk, full_from=5, full_until=99))
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be written: No space left on device" in line
    assert ended.stderr.count("warning: checkpoint ") == tries - 1 and "Traceback" not in ended.stderr
    held = [os.path.basename(path) for path in checkpoint_files.prefixes(str(disk))]
    assert held == (["model.ckpt-2", "model.ckpt-4"] if between == 2 else [])
    for path in held:
        runs.tensors(disk / path)
