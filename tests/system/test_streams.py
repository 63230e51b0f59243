from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain.system import streams

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess:
    program = f"import os, sys\nfrom bert_pretrain.system import streams\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_line_of_another_rank_is_printed_with_its_number() -> None:
    ended = run(
        "streams.prefix_rank(3)\nprint('to stdout')\nprint('one', file=sys.stderr, flush=True)\n"
        "os.write(2, b'two\\nthr')\nos.write(2, b'ee\\nhalf a line')\nos.abort()"
    )
    assert ended.returncode == -signal.SIGABRT
    assert ended.stderr == "[rank 3] one\n[rank 3] two\n[rank 3] three\n[rank 3] half a line\n"


def test_the_lines_of_rank_0_have_no_prefix() -> None:
    ended = run("streams.prefix_rank(0)\nprint('one', file=sys.stderr)\nsys.exit(2)")
    assert (ended.stderr, ended.returncode) == ("one\n", 2)


def test_only_lines_of_tensorflow_s_import_are_hidden() -> None:
    ended = run(
        "with streams.without_import_lines():\n"
        "    os.write(2, b'I0000 port.cc:153] oneDNN custom operations are on. You may\\nan error\\n')\n"
        "os.write(2, b'afterwards: oneDNN custom operations are on\\n')"
    )
    assert ended.stderr == "an error\nafterwards: oneDNN custom operations are on\n"


def test_the_last_words_of_an_import_that_crashes_are_printed() -> None:
    ended = run("with streams.without_import_lines():\n    os.write(2, b'illegal instruc')\n    os.abort()")
    assert (ended.stderr, ended.returncode) == ("illegal instruc\n", -signal.SIGABRT)


# --- Streams that are closed, full, broken, or of few characters ---

SECURED = """
import sys
from bert_pretrain.system import streams
streams.secure_streams()
with open(sys.argv[1], "w") as file:
    print("to stdout: \\u00fc\\udcff", flush=True)
    print("to stderr: \\u00fc", file=sys.stderr)
    file.write("content")
"""
# Redirections of a shell, and what is printed.
STREAMS = {
    "closed": (">&- 2>&- <&-", ""),
    "full": (">/dev/full 2>/dev/full", ""),
    "without_reader": ("2>&1 | true", ""),
    "ascii": ("2>&1", "to stdout: \\xfc\\udcff\nto stderr: \\xfc\n"),
}


def shell(program: str, redirections: str, *arguments: str) -> subprocess.CompletedProcess:
    command = f'set -o pipefail; "$0" -c "$@" {redirections}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, program, *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nothing_that_becomes_of_the_streams_ends_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    redirections, printed = STREAMS[name]
    ended = shell(SECURED, redirections, str(tmp_path / "file"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, printed, "")
    assert (tmp_path / "file").read_text() == "content"


def test_programs_that_are_started_inherit_no_closed_stream() -> None:
    child = "import os; os.write(int(os.environ['OUT']), b'%d %d' % (os.fstat(0).st_rdev, os.fstat(1).st_rdev))"
    program = f"""
import os, subprocess, sys
from bert_pretrain.system import streams
streams.secure_streams()
out = os.dup(2)
subprocess.run([sys.executable, "-c", {child!r}], env={{**os.environ, "OUT": str(out)}}, pass_fds=[out], check=True)
"""
    null = os.stat(os.devnull).st_rdev
    assert shell(program, ">&- <&-").stderr == f"{null} {null}"


@pytest.mark.parametrize(
    ("redirections", "code", "error"),
    [
        ("| true", 128 + signal.SIGPIPE, ""),
        (">/dev/full", 1, "error: stdout cannot be written: No space left on device\n"),
        (">&-", 0, ""),
    ],
)
def test_an_answer_that_is_lost_is_no_success(redirections: str, code: int, error: str) -> None:
    program = "from bert_pretrain.system import streams\nstreams.secure_streams()\n"
    ended = shell(f"{program}for n in range(2000): streams.print_answer('x' * 1000)", redirections)
    assert (ended.returncode, ended.stderr) == (code, error)


def test_help_ends_quietly_when_its_reader_has_read_enough() -> None:
    program = "import time, bert_pretrain.run; time.sleep(0.5); bert_pretrain.run.main()"
    ended = shell(program, "--help | true")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_a_stream_that_is_not_the_process_s_own_is_left_as_it_is(capsys: pytest.CaptureFixture) -> None:
    streams.secure_streams()
    print("captured")
    assert capsys.readouterr().out == "captured\n"
