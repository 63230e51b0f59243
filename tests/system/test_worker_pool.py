import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bert_pretrain.system import worker_pool

PROJECT = Path(__file__).parents[2]


def square(piece, report):
    report(0.5)
    return piece * piece


def fail(piece, report):
    raise ValueError(f"piece {piece} is bad")


def die(piece, report):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_every_piece_is_done_and_heard_of(num_processes):
    shares, results = {}, {}
    with worker_pool.worker_processes(num_processes) as workers:
        workers.run(square, list(range(7)), shares.__setitem__, results.__setitem__)
    assert results == {number: number**2 for number in range(7)}
    assert shares == dict.fromkeys(range(7), 0.5)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_error_arrives(num_processes):
    with pytest.raises(ValueError, match="piece 0 is bad"), worker_pool.worker_processes(num_processes) as workers:
        workers.run(fail, [0], lambda number, share: None, lambda number, result: None)


def test_a_killed_worker_is_told_in_one_line():
    with pytest.raises(ValueError, match="a worker process was killed"), worker_pool.worker_processes(2) as workers:
        workers.run(die, [0], lambda number, share: None, lambda number, result: None)


@pytest.mark.parametrize(
    ("num_processes", "number"), [(1, signal.SIGHUP), (2, signal.SIGTERM), (2, signal.SIGINT), (2, signal.SIGUSR1)]
)
def test_a_signal_ends_all_processes_and_leaves_no_half_file(tmp_path, num_processes, number):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        import time
        from bert_pretrain.system import worker_pool
        from bert_pretrain.data.shards.tfrecord import write_shard

        def endless():
            while True:
                yield b"record"
                time.sleep(0.01)

        def work(piece, report):
            write_shard(r"{tmp_path}/shard" + str(piece), endless())

        if __name__ == "__main__":
            with worker_pool.worker_processes({num_processes}) as workers:
                workers.run(work, list(range(5)), lambda number, share: None, lambda number, result: None)
        """)
    )
    process = subprocess.Popen([sys.executable, str(program)], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob(".shard*"))) < num_processes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(tmp_path.glob(".shard*"))) == num_processes
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["program.py"]


@pytest.mark.parametrize("mount", ["-o ro tmpfs", "-o size=4k tmpfs"])
def test_one_process_does_the_work_where_semaphores_cannot_be_made(mount):
    """As in a container with a /dev/shm that is read-only, or full."""
    program = """
from bert_pretrain.system import worker_pool
with worker_pool.worker_processes(2) as workers:
    workers.run(lambda piece, report: piece + 1, [1, 2], lambda *_: None, lambda number, result: print(result))
"""
    setup = f"mount -t tmpfs {mount} /dev/shm || exit 77; head -c 4096 /dev/zero 2>/dev/null >/dev/shm/full"
    command = ["unshare", "-m", "sh", "-c", f'{setup}; exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("needs root, for a mount of its own")
    assert (done.returncode, done.stdout) == (0, "2\n3\n"), done.stderr
    assert done.stderr.startswith("note: this process works alone instead of 2: ") and done.stderr.count("\n") == 1
