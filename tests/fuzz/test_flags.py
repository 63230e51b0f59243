"""Any flags and any hostfile are taken, or refused by one line: no traceback, no number that training cannot hold."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.distributed import rank_watch
from bert_pretrain.launch import hosts, launcher
from bert_pretrain.system import processes
from tests.fuzz.examples import assert_is_one_line, fuzz
from tests.fuzz.flag_reader import ENTRY_POINTS

ROOT = Path(__file__).parents[2]
NONSENSE = ["inf", "-inf", "nan", "1e400", "-1e400", "1e-400", str(2**31), str(2**70), "-1", "0", "-0.0", "", " ", "~"]
VALUES = st.one_of(
    st.sampled_from([*NONSENSE, "1", "True", "no", "a,b", "~nobody/x"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
)
NEEDED = {
    "run": ["--bert_config_file=c", "--output_dir=o", "--do_train", "--input_files_dir=i"],
    "make_data": ["--input_file=i", "--output_file=o", "--vocab_file=v"],
    "check_data": ["--input_files_dir=i"],
}


@pytest.fixture(scope="module", params=sorted(ENTRY_POINTS))
def reader(request: pytest.FixtureRequest) -> Iterator[tuple[str, subprocess.Popen]]:
    """An entry point, and a process that reads its flags."""
    command = [sys.executable, "-m", "tests.fuzz.flag_reader", request.param]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield request.param, process
        process.stdin.close()


@fuzz(1 / 3)
@given(data=st.data())
def test_any_flags(reader: tuple[str, subprocess.Popen], data: st.DataObject) -> None:
    name, process = reader
    names = [field.name for part in ENTRY_POINTS[name] for field in dataclasses.fields(part)]
    arguments = data.draw(
        st.lists(st.builds("--{}={}".format, st.sampled_from(names), VALUES) | VALUES, min_size=1, max_size=3)
    )
    arguments = [argument for argument in arguments if argument.lstrip("-") not in ("?", "h", "help", "helpshort")]
    process.stdin.write(json.dumps([*NEEDED[name], *arguments]) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    assert "failed" not in answer, (arguments, answer["failed"])
    if "refused" in answer:
        assert_is_one_line(ValueError(answer["refused"]))


WORDS = st.sampled_from(["node1", "node2", "slots=8", "slots=", "slots=-1", "max_slots=9", "#", "\n", "=", "slots=1e9"])
HOSTFILES = st.one_of(
    st.lists(WORDS | st.text(max_size=6), max_size=12).map(" ".join).map(lambda s: s.encode("utf-8", "replace")),
    st.binary(max_size=40),
    st.integers(1, 6000).map(lambda digits: b"node1 slots=" + b"9" * digits),
)


@fuzz()
@given(content=HOSTFILES)
def test_any_hostfile(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(content)
    try:
        slots = hosts.read_hostfile(str(path), default_slots=2)
    except ValueError as error:
        assert_is_one_line(error)
        assert "HOSTFILE=" in str(error)
    else:
        assert slots and all(number >= 1 for number in slots.values())


@fuzz()
@given(value=VALUES)
def test_any_environment_of_a_launcher(value: str) -> None:
    machine = launcher.LocalMachine(num_cores=2, num_gpus=0, is_root=False)
    calls = [
        lambda: launcher.choose_num_ranks({"NP": value}, machine) >= 1,
        lambda: launcher.choose_num_ranks({"CUDA_VISIBLE_DEVICES": value}, machine) >= 1,
        lambda: launcher.take_number_flag("max_restarts", 0, [f"--max_restarts={value}"])[0] >= 0,
        lambda: processes.launched_size({"PMI_SIZE": value}) >= 0,
        lambda: processes.launched_rank({"PMI_RANK": value}) >= 0,
        lambda: min(rank_watch.stall_seconds({"HOROVOD_STALL_CHECK_TIME_SECONDS": value})) >= 0,
    ]
    for call in calls:
        try:
            assert call()
        except ValueError as error:
            assert "\n" not in repr(str(error)) and len(str(error)) < 1000
