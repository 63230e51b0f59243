"""Results of tasks, and the line that says how far they are."""

import re

import pytest

from bert_pretrain.make_data import task_progress
from bert_pretrain.make_data.task_progress import Progress, run_tasks
from bert_pretrain.system import worker_pool


def work(piece, report):
    report(Progress(0.5, 1000 * piece))
    report(Progress(0.25))
    return piece


def double(piece, report):
    return 2 * piece


@pytest.mark.parametrize("num_processes", [1, 2])
def test_results_come_in_the_order_of_the_pieces_where_they_are_wanted(num_processes):
    found = []
    with worker_pool.worker_processes(num_processes) as workers:
        assert run_tasks(workers, double, [*range(9)], [5, 1, 4, 2, 8, 6, 7, 3, 9], 9, found.append) == []
        assert sorted(run_tasks(workers, double, [1, 2], [5, 7], 2)) == [2, 4]
    assert found == [2 * number for number in range(9)]


def test_the_largest_tasks_are_first_and_lines_count_bytes_tasks_and_results(capsys, monkeypatch):
    monkeypatch.setattr(task_progress, "_LOG_SECONDS", -1)
    with worker_pool.worker_processes(1) as workers:
        assert run_tasks(workers, work, [1, 2, 3], [2_000_000, 4_000_000, 6_000_000], 5, unit="documents") == [3, 2, 1]
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "2 of 5 were finished before and are kept"
    assert re.search(r"25%.* 3\.00M/12\.0M .*B/s, 0 of 3 done, 3,000 documents\]", lines[0])
    assert re.search(r"50%.* 6\.00M/12\.0M .*B/s, 1 of 3 done, 3,000 documents\]", lines[2])
    assert re.search(r"100%.* 12\.0M/12\.0M .*B/s, 3 of 3 done, 6,000 documents\]", lines[-1])
