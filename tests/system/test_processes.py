"""Rank and size from the launcher, and what schedulers set."""

from __future__ import annotations

import pytest

from bert_pretrain.system import processes


@pytest.mark.parametrize(
    ("environ", "rank", "size"),
    [
        ({}, 0, None),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"}, 3, 8),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, 1, 2),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "4"}, 1, 4),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, 0, 1),
    ],
)
def test_launchers_tell_rank_and_size(environ: dict[str, str], rank: int, size: int) -> None:
    assert processes.launched_rank(environ) == rank
    assert processes.launched_size(environ) == size


@pytest.mark.parametrize("text", ["", "two", "-1", "1e3", "9" * 40])
def test_a_launcher_s_invalid_number_is_named(text: str) -> None:
    assert processes.launched_rank({"OMPI_COMM_WORLD_RANK": text}) == 0
    with pytest.raises(ValueError, match=f"PMI_SIZE={text} in the environment is not a number of processes"):
        processes.launched_size({"PMI_SIZE": text})


def test_what_schedulers_set_is_removed_and_rank_0_says_so() -> None:
    environ = {"TF_CONFIG": '{"cluster": {}}', "WORLD_SIZE": "4", "TF_NUM_INTEROP_THREADS": "1"}
    (line,) = processes.forget_schedulers({**environ})
    assert line.startswith("note: TF_CONFIG, WORLD_SIZE in the environment ignored")
    assert list(processes.forget_schedulers({**environ, "PMI_RANK": "1"})) == []
    assert list(processes.forget_schedulers(environ)) and environ == {"TF_NUM_INTEROP_THREADS": "1"}
    assert list(processes.forget_schedulers(environ)) == []
