"""Whole runs whose data are in a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

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
    return runs.settings(output_dir=str(output_dir), max_eval_steps=4, stop_threshold=0.0, **few, **changes)


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


def test_what_is_wrong_with_a_url_is_one_line(data, bucket, tmp_path: Path) -> None:
    wrong = {**data, "input_files_dir": f"{bucket}/nothing"}
    done = runs.start(runs.flags(**wrong, **values(tmp_path / "out")))
    expected = f"error: --input_files_dir: {bucket}/nothing: no such bucket or directory; give the one that holds the"
    assert (done.returncode, done.stderr.splitlines()[-1].startswith(expected)) == (2, True), done.stderr


def test_credentials_that_are_missing_or_a_server_that_is_away_are_one_line(bucket, tmp_path: Path) -> None:
    program = (
        "from bert_pretrain.data.shard_files import find_shards\n"
        "try: find_shards(['s3://bucket/x'])\n"
        "except ValueError as error: print(error)"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    plain.update(HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true")
    for changes, expected in (
        (
            {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]},
            r"cannot be listed \(no credentials; set AWS_ACCESS_KEY_ID",
        ),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", **servers.KEYS}, r"cannot be listed \(4 tries failed, .*connect"),
    ):
        done = runs.subprocess.run(
            [runs.sys.executable, "-c", program], env={**plain, **changes}, capture_output=True, text=True
        )
        assert runs.re.fullmatch(f"s3://bucket/x: {expected}.*\n", done.stdout), (done.stdout, done.stderr)
