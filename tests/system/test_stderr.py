from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess:
    program = f"import os, sys\nfrom bert_pretrain.system import stderr\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_line_of_another_rank_is_printed_with_its_number() -> None:
    ended = run(
        "stderr.prefix_rank(3)\nprint('to stdout')\nprint('one', file=sys.stderr, flush=True)\n"
        "os.write(2, b'two\\nthr')\nos.write(2, b'ee\\nhalf a line')\nos.abort()"
    )
    assert ended.returncode == -signal.SIGABRT
    assert ended.stderr == "[rank 3] one\n[rank 3] two\n[rank 3] three\n[rank 3] half a line\n"


def test_the_lines_of_rank_0_have_no_prefix() -> None:
    ended = run("stderr.prefix_rank(0)\nprint('one', file=sys.stderr)\nsys.exit(2)")
    assert (ended.stderr, ended.returncode) == ("one\n", 2)


def test_only_lines_of_tensorflow_s_import_are_hidden() -> None:
    ended = run(
        "with stderr.without_import_lines():\n"
        "    os.write(2, b'I0000 port.cc:153] oneDNN custom operations are on. You may\\nan error\\n')\n"
        "os.write(2, b'afterwards: oneDNN custom operations are on\\n')"
    )
    assert ended.stderr == "an error\nafterwards: oneDNN custom operations are on\n"


def test_the_last_words_of_an_import_that_crashes_are_printed() -> None:
    ended = run("with stderr.without_import_lines():\n    os.write(2, b'illegal instruc')\n    os.abort()")
    assert (ended.stderr, ended.returncode) == ("illegal instruc\n", -signal.SIGABRT)
