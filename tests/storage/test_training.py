"""Whole runs whose data are in a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.config.export import ExportConfig
from bert_pretrain.export import writing
from bert_pretrain.storage import local_copies
from tests.e2e import runs
from tests.storage import servers

servers.require()
FAULTS = ("503", "reset", "truncated", "wrong bytes", "slow")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def remote_data(data: dict[str, str], bucket: str, put) -> dict[str, str]:
    """The same data in a bucket."""
    moved = {}
    for flag in ("input_files_dir", "eval_files_dir"):
        for path in Path(data[flag]).iterdir():
            put(f"{flag}/{path.name}", path.read_bytes())
        moved[flag] = f"{bucket}/{flag}"
    return {**data, **moved}


def values(output_dir: Path, **changes: object) -> dict[str, object]:
    few = {"num_train_steps": 6, "do_eval": True, "samples_start_eval": 18, "samples_between_eval": 18}
    return runs.settings(output_dir=str(output_dir), max_eval_steps=4, stop_threshold=0.0, **{**few, **changes})


def test_the_same_bits_are_trained_from_a_bucket_with_errors_as_from_a_disk(
    data, remote_data, proxy, tmp_path: Path
) -> None:
    runs.train(**data, **values(tmp_path / "local"))
    proxy.choose = lambda number, path: FAULTS[number // 4 % len(FAULTS)] if number % 4 == 2 else None
    runs.train(**remote_data, **values(tmp_path / "ranges"))
    assert sum(proxy.faults.values()) >= 4
    runs.train(**remote_data, **values(tmp_path / "copies", cache_dir=str(tmp_path / "copied")))
    assert len([name for name in os.listdir(tmp_path / "copied") if name.endswith(".copy")]) == 5
    expected = runs.tensors(tmp_path / "local" / "model.ckpt-6")
    for name in ("ranges", "copies"):
        found = runs.tensors(tmp_path / name / "model.ckpt-6")
        assert found.keys() == expected.keys()
        for variable, value in expected.items():
            np.testing.assert_array_equal(found[variable], value, err_msg=variable)
        assert [point["masked_lm_loss"] for point in runs.metrics(tmp_path / name, "eval")] == [
            point["masked_lm_loss"] for point in runs.metrics(tmp_path / "local", "eval")
        ]


@pytest.mark.slow
def test_model_and_weights_from_a_bucket_train_the_same_bits(data, put, proxy, tmp_path: Path, monkeypatch) -> None:
    changes = {"num_train_steps": 2, "do_eval": False, "native_kernels": False}
    runs.train(**data, **values(tmp_path / "first", **changes))
    for path in sorted((tmp_path / "first").glob("*")):
        if path.is_file():
            put(f"first/{path.name}", path.read_bytes())
    url = put("model/bert_config.json", Path(data["bert_config_file"]).read_bytes())
    remote = {"init_checkpoint": f"{url.rpartition('/model/')[0]}/first", "bert_config_file": url}
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    runs.train(**data, **values(tmp_path / "local", **changes, init_checkpoint=str(tmp_path / "first")))
    proxy.choose = lambda number, path: FAULTS[number % 3] if number % 3 != 1 else None
    runs.train(**{**data, **remote}, **values(tmp_path / "remote", **changes))
    expected, found = (runs.tensors(tmp_path / name / "model.ckpt-2") for name in ("local", "remote"))
    assert found.keys() == expected.keys()
    for variable, value in expected.items():
        np.testing.assert_array_equal(found[variable], value, err_msg=variable)
    settings = json.loads((tmp_path / "remote" / "run.json").read_text())["settings"]["run"]
    assert {name: settings[name] for name in remote} == remote
    page = tmp_path / "report.html"
    command = [sys.executable, "-m", "bert_pretrain.report", remote["init_checkpoint"], f"--output={page}"]
    assert "1 run" in subprocess.run(command, capture_output=True, text=True, check=True).stdout and page.exists()
    exported = ExportConfig(checkpoint=remote["init_checkpoint"], tf1_prefix=str(tmp_path / "weights"))
    assert writing.export_model(local_copies.localize_settings(exported)) == 0


def test_what_is_wrong_with_a_url_is_one_line(data, bucket, tmp_path: Path) -> None:
    wrong = {**data, "init_checkpoint": f"{bucket}/nothing"}
    done = runs.start(runs.flags(**wrong, **values(tmp_path / "out")))
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: --init_checkpoint: {bucket}/nothing: no such ")
    wrong = {**data, "input_files_dir": f"{bucket}/nothing"}
    with pytest.raises(ValueError, match=f"^--input_files_dir: {bucket}/nothing: no such bucket or directory"):
        runs.train(**wrong, **values(tmp_path / "out"))


def test_credentials_that_are_missing_or_a_server_that_is_away_are_one_line(bucket, tmp_path: Path) -> None:
    program = (
        "from bert_pretrain.data.shards.shard_files import find_shards\n"
        "try: find_shards(['s3://bucket/x'])\n"
        "except ValueError as error: print(error)"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    plain.update(HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true")
    for changes, expected in (
        (
            {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]},
            r"cannot be listed \(no credentials; .*AWS_ACCESS_KEY_ID",
        ),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", **servers.KEYS}, r"cannot be listed \(4 tries failed, .*connect"),
    ):
        done = subprocess.run([sys.executable, "-c", program], env={**plain, **changes}, capture_output=True, text=True)
        assert runs.re.fullmatch(f"s3://bucket/x: {expected}.*\n", done.stdout), (done.stdout, done.stderr)
