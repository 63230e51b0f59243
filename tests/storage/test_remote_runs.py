"""Whole runs whose output_dir is in a bucket: killed, stopped, and continued on machines with empty directories."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from bert_pretrain.run_files import run_json
from bert_pretrain.storage import remote, remote_lock
from tests.e2e import runs
from tests.storage import servers

servers.require()
FEW = {"save_checkpoints_steps": 2, "keep_checkpoint_max": 2, "native_kernels": False}
# Updates that take as long as an upload.
SLOW = """
import time
from bert_pretrain.train.hooks import TrainingHook
report = TrainingHook._report
def reporting(self, update):
    report(self, update)
    time.sleep(0.4)
TrainingHook._report = reporting
"""
# A job on another machine would watch the lock of a killed one for half a minute.
SHORT_WATCH = f"""
from bert_pretrain.storage import remote, remote_lock
remote_lock._WATCH_SECONDS = 1.0
remote._TIMEOUT_SECONDS = {servers.TIMEOUT_SECONDS}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return runs.make_data(tmp_path_factory.mktemp("data"))


def names(url: str) -> set[str]:
    return {os.path.basename(file.url) for file in remote.list_files(url)}


def checkpoints(url: str) -> list[str]:
    return sorted(name[: -len(".index")] for name in names(url) if name.endswith(".index"))


def run_until_killed(arguments: list[str], proxy: servers.FaultyProxy, path_part: str) -> str:
    """A process that is killed while it uploads the second object of that kind; returns what it printed."""
    code = f"{SLOW}\nimport runpy\nrunpy.run_module('bert_pretrain.run', run_name='__main__', alter_sys=True)\n"
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seen: set[str] = set()

    def choose(number: int, path: str) -> Optional[str]:
        if path_part in path:
            seen.add(path)
        if len(seen) < 2:
            return None
        process.send_signal(signal.SIGKILL)
        return "reset"

    proxy.choose_put = choose
    printed = process.communicate(timeout=120)[0]
    proxy.choose_put = lambda number, path: None
    assert process.returncode == -signal.SIGKILL, printed
    return printed


@pytest.mark.slow
def test_a_run_that_is_killed_in_an_upload_and_stopped_ends_elsewhere_with_the_same_bits(
    data, bucket, proxy, tmp_path: Path, capsys
) -> None:
    runs.train(**data, **runs.settings(output_dir=str(tmp_path / "undisturbed"), **FEW))
    url = f"{bucket}/runs/first"

    def arguments(machine: str) -> dict[str, Any]:
        place = {"output_dir": url, "local_output_dir": str(tmp_path / machine)}
        return {**data, **runs.settings(**place, **FEW)}

    run_until_killed(runs.flags(**arguments("killed")), proxy, ".data-")
    (first,) = checkpoints(url)
    assert f'model_checkpoint_path: "{first}"' in remote.read_small(f"{url}/checkpoint").decode()

    proxy.choose_put = lambda number, path: servers.FAULTS[number // 3 % 4] if number % 3 == 1 else None
    stopped = runs.start(runs.flags(**arguments("stopped")), SHORT_WATCH + runs.signal_after(8, "SIGTERM"))
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped by a signal after update 9" in stopped.stdout, stopped.stdout
    assert f"output_dir: {url} " in stopped.stdout.splitlines()[-1]
    assert f"{first} of {url} is fetched to {tmp_path / 'stopped'}" in stopped.stdout
    assert "model.ckpt-9" in checkpoints(url) and remote_lock.LOCK_NAME not in names(url)
    assert 'model_checkpoint_path: "model.ckpt-9"' in remote.read_small(f"{url}/checkpoint").decode()

    # Known before anything is fetched: products have the dtype that the run had.
    given = runs.make_config(**arguments("last"))
    run = dataclasses.replace(given.run, output_dir=str(tmp_path / "last"))
    assert run_json.previous_dtype(dataclasses.replace(given, run=run, with_urls=given)) == "float32"
    results = runs.train(**arguments("last"))
    assert f"model.ckpt-9 of {url} is fetched" in capsys.readouterr().out
    assert (results["end"], results["updates"]) == ("completed", 12)
    assert len(checkpoints(url)) == 2 and "model.ckpt-12" in checkpoints(url)
    assert {"results.json", "metrics.jsonl", "run.json", "bert_dllog.json"} <= names(url)
    for name in ("results.json", "metrics.jsonl", "model.ckpt-12.index"):
        assert remote.read_small(f"{url}/{name}") == (tmp_path / "last" / name).read_bytes()
    assert [point["update"] for point in runs.metrics(tmp_path / "last", "train")] == list(range(1, 13))
    expected, found = (runs.tensors(tmp_path / name / "model.ckpt-12") for name in ("undisturbed", "last"))
    assert found.keys() == expected.keys()
    for variable, value in expected.items():
        np.testing.assert_array_equal(found[variable], value, err_msg=variable)


def test_an_upload_that_fails_at_the_end_is_an_error_and_made_by_the_next_start(
    data, bucket, proxy, tmp_path: Path, monkeypatch, capsys
) -> None:
    url, directory = f"{bucket}/run", tmp_path / "local"
    monkeypatch.setattr("bert_pretrain.storage.remote.TRIES", 2)
    proxy.choose_put = lambda number, path: "500" if ".data-" in path else None
    few = {**FEW, "num_train_steps": 2, "output_dir": url, "local_output_dir": str(directory)}
    values = {**data, **runs.settings(**few)}
    with contextlib.suppress(AssertionError):
        assert runs.train(**values) is None, "the exit code is 0"
    error = capsys.readouterr().err
    assert f"warning: {url}: checkpoint model.ckpt-2 is not uploaded (2 tries failed, " in error
    assert str(directory) in error
    assert not checkpoints(url) and "results.json" in names(url)
    proxy.choose_put = lambda number, path: None
    runs.train(**values)
    assert f"{directory / 'model.ckpt-2'} is the newest, {url} has no checkpoint" in capsys.readouterr().out
    assert checkpoints(url) == ["model.ckpt-2"]


def test_an_evaluation_alone_takes_the_checkpoint_of_a_bucket_and_writes_there(
    data, bucket, proxy, tmp_path: Path
) -> None:
    url = f"{bucket}/run"
    few = {**FEW, "num_train_steps": 2, "output_dir": url, "local_output_dir": str(tmp_path / "trained")}
    runs.train(**data, **runs.settings(**few))
    before = remote.read_small(f"{url}/run.json")
    alone = {"do_train": False, "do_eval": True, "max_eval_steps": 2, "local_output_dir": str(tmp_path / "evaluated")}
    results = runs.train(**data, **runs.settings(**{**few, **alone}))
    assert results["eval_examples"] == 48
    for name in ("results.json", "metrics.jsonl"):
        assert remote.read_small(f"{url}/{name}") == (tmp_path / "evaluated" / name).read_bytes()
    assert remote.read_small(f"{url}/run.json") == before
