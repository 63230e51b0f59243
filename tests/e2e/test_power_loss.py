"""Files of a run as a power loss may leave them, and that none of them has its name before it is on the disk."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from tests import forked
from tests.e2e import runs
from tests.fuzz.examples import assert_is_one_line

# Python that a process executes first. A file that gets its name must be on the disk as it is then; that its folder is
# written to the disk afterwards can be seen from a log. Caches are left out: a digest tells what is damaged there.
WATCH_RENAMES = """
import os
on_disk, fsync, replace = set(), os.fsync, os.replace
def state(found):
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
def note(*words):
    with open(os.environ["RENAMES"], "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")
def fsync_noted(descriptor):
    fsync(descriptor)
    found = os.fstat(descriptor)
    on_disk.add(state(found))
    note("fsync", found.st_ino)
def replace_noted(source, target):
    if os.environ["BERT_PRETRAIN_CACHE"] not in os.path.abspath(target):
        assert state(os.stat(source)) in on_disk, f"not on the disk: {source}"
        folder = os.stat(os.path.dirname(os.path.abspath(target)))
        note("replace", folder.st_ino, os.path.basename(target))
    replace(source, target)
os.fsync, os.replace = fsync_noted, replace_noted
"""


def cut(path: Path, seed: int) -> None:
    """The file's size was not on the disk yet."""
    os.truncate(path, random.Random(seed).randrange(path.stat().st_size))


def empty(path: Path, seed: int) -> None:
    os.truncate(path, 0)


def zero(path: Path, seed: int) -> None:
    """The size was, the contents were not."""
    path.write_bytes(bytes(path.stat().st_size))


def zero_end(path: Path, seed: int) -> None:
    content = path.read_bytes()
    kept = random.Random(seed).randrange(len(content))
    path.write_bytes(content[:kept] + bytes(len(content) - kept))


DAMAGE = [cut, empty, zero, zero_end]


def settings(output_dir: Path) -> dict[str, Any]:
    """Checkpoints after 5 and 10 of 12 updates, evaluations, the best of them kept."""
    return runs.settings(
        output_dir=str(output_dir), do_eval=True, stop_threshold=0.0, samples_start_eval=18, samples_between_eval=24
    )


@pytest.fixture(scope="module")
def undisturbed(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to its end."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    runs.train(**data, **settings(output_dir))
    return output_dir


@pytest.fixture(scope="module")
def without_power(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run after update 11."""
    output_dir = tmp_path_factory.mktemp("without_power")
    done = runs.start(runs.flags(**data, **settings(output_dir)), before=runs.signal_after(11))
    assert done.returncode == -9, done.stderr
    return output_dir


@pytest.fixture
def output_dir(without_power: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(without_power, tmp_path / "out")


def files_of(output_dir: Path) -> list[Path]:
    return sorted(path for path in output_dir.rglob("*") if path.is_file() and path.stat().st_size)


def assert_ends_as(undisturbed: Path, output_dir: Path, data: dict[str, str]) -> None:
    """The next start ends with the same weights, and reports nothing else of any update."""
    assert runs.train(**data, **settings(output_dir))["end"] == "completed"
    values, others = (runs.tensors(path / "model.ckpt-12") for path in (undisturbed, output_dir))
    assert values.keys() == others.keys()
    for name in values:
        np.testing.assert_array_equal(values[name], others[name], err_msg=name)
    for kind in ("train", "eval"):
        losses = {point["update"]: point["masked_lm_loss"] for point in runs.metrics(undisturbed, kind)}
        found = {point["update"]: point["masked_lm_loss"] for point in runs.metrics(output_dir, kind)}
        assert found.items() <= losses.items() and 12 in found


# --- What a start finds ---


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_goes_on_whatever_has_become_of_its_reports_and_its_newest_checkpoint(
    damage: Callable, undisturbed: Path, output_dir: Path, data: dict[str, str]
) -> None:
    for seed, path in enumerate(files_of(output_dir)):
        if path.name != "run.json" and not path.name.startswith(("model.ckpt-3.", "model.ckpt-5.", "model.ckpt-7.")):
            damage(path, seed)
    assert_ends_as(undisturbed, output_dir, data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_description_of_a_run_is_named(damage: Callable, output_dir: Path, data: dict[str, str]) -> None:
    """A start that compared nothing could go on with other flags."""
    damage(output_dir / "run.json", 1)
    with pytest.raises(ValueError, match=f"{output_dir}/run.json .*move it away") as raised:
        runs.train(**data, **settings(output_dir))
    assert_is_one_line(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_goes_on_whatever_has_become_of_a_file(
    damage: Callable, undisturbed: Path, without_power: Path, tmp_path: Path, data: dict[str, str]
) -> None:
    for seed, path in enumerate(files_of(without_power)):
        if path.name != "run.json":
            output_dir = shutil.copytree(without_power, tmp_path / str(seed))
            damage(output_dir / path.relative_to(without_power), seed)
            assert_ends_as(undisturbed, output_dir, data)


# --- What a program leaves ---


def watched(folder: Path, module: str, *arguments: str) -> set[str]:
    """The names that a program, without workers, gave to files; names and contents were then on the disk."""
    log = folder / "renames"
    log.write_text("")
    done = forked.run_module(module, arguments, WATCH_RENAMES)
    assert done.returncode == 0, done.stderr
    names, unsaved = set(), set()
    for what, inode, *name in map(str.split, log.read_text().splitlines()):
        if what == "replace":
            names.update(name)
            unsaved.add(inode)
        else:
            unsaved.discard(inode)
    assert names and not unsaved
    return names


@pytest.mark.slow
def test_what_has_its_name_is_on_the_disk(data: dict[str, str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RENAMES", str(tmp_path / "renames"))
    run = runs.flags(**data, **settings(tmp_path / "out"), native_kernels=False)
    names = watched(tmp_path, "bert_pretrain.run", *run)
    assert names >= {"run.json", "results.json", "checkpoint", "model.ckpt-12.index", "evaluation.json"}
    text, vocab = tmp_path / "text.txt", f"--vocab_file={tmp_path}/vocab.txt"
    documents = ["\n".join(f"This is sentence {n} of document {d}, {d * n}." for n in range(9)) for d in range(40)]
    text.write_text("\n\n".join(documents))
    make, made = ("bert_pretrain.make_data", "--num_processes=1"), f"{tmp_path}/made"
    names = watched(tmp_path, *make, "--make_text", f"--input_file={text}", f"--output_dir={made}", "--num_held_out=2")
    assert "text_report.json" in names and any(name.endswith(".txt") for name in names)
    names = watched(tmp_path, *make, "--train_vocab", f"--input_file={made}/train/*.txt", vocab, "--vocab_size=60")
    assert names == {"vocab.txt", "vocab.txt.json"}
    shards = f"--output_dir={made}/shards"
    names = watched(tmp_path, *make, f"--input_file={made}/train/*.txt", vocab, shards, "--num_shards=2")
    assert len([name for name in names if name.endswith(".tfrecord")]) == 2
    names = watched(tmp_path, "bert_pretrain.check_data", f"--input_files_dir={made}/shards", vocab)
    assert names == {"manifest.json"}
