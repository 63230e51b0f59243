"""What init_tf.sh would run, printed by DRY_RUN=1 on a PATH that holds only what a test puts there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain.environment import versions

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = versions.TESTED[versions.this_python()][-1]
UNFIT = "2.21.0" if versions.this_python() in ("3.8", "3.9") else "2.6.5"  # has no wheels for this Python
TOO_NEW = """
case "$*" in
  *explain*) printf '3.13\\nfound Python 3.14; supported are others\\n' ;;
  *bert_pretrain.environment*) exit 1 ;;
esac
"""


class Fresh:
    """A copy of the project without an environment."""

    def __init__(self, folder):
        self.project, self.bin = folder / "project", folder / "bin"
        self.python = self.project / ".venv/bin/python"
        (self.project / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copytree(ROOT / "constraints", self.project / "constraints")
        shutil.copytree(ROOT / "bert_pretrain/environment", self.project / "bert_pretrain/environment")
        shutil.copytree(ROOT / "bert_pretrain/system", self.project / "bert_pretrain/system")
        for name in (
            "init_tf.sh",
            "scripts/_launch.sh",
            "setup.py",
            "bert_pretrain/__init__.py",
        ):
            shutil.copy(ROOT / name, self.project / name)
        for tool in ("bash", "dirname", "sed", "env"):
            (self.bin / tool).symlink_to(shutil.which(tool))

    def program(self, name, text, folder=None):
        path = (folder or self.bin) / name
        path.unlink(missing_ok=True)  # it may be a link to this machine's own program
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def this_python(self, name):
        self.program(name, f'exec {sys.executable} "$@"')

    def existing_venv(self, tensorflow):
        """A .venv of this Python that was set up with a TensorFlow; nothing is installed in it."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.project / ".venv")], check=True)
        site = next((self.project / ".venv/lib").glob("python3*")) / "site-packages"
        (site / "pip.py").touch()
        stamp = {"key": "of an older project", "tensorflow": tensorflow, "extras": ["mlperf"]}
        (self.project / ".venv/bert_pretrain.json").write_text(json.dumps(stamp))

    def init(self, *arguments, **environ):
        return subprocess.run(
            ["bash", str(self.project / "init_tf.sh"), *arguments],
            env={"PATH": str(self.bin), "DRY_RUN": "1", "HOME": str(self.project), **environ},
            capture_output=True,
            text=True,
            check=False,
        )


# A vendor's TensorFlow without a visible device.
VENDORS = """
__version__ = "2.6.5"
class config:
    list_physical_devices = staticmethod(lambda: [])
"""


@pytest.fixture
def fresh(tmp_path):
    return Fresh(tmp_path)


def test_init_takes_a_python_that_starts(fresh):
    fresh.program("python3", "exit 127")  # what pyenv leaves on PATH for a version that is not selected
    fresh.this_python("python3.10")
    done = fresh.init("--test", "--print-python")
    assert done.stdout == f"{fresh.python}\n"
    assert done.stderr.splitlines()[1:] == [
        f"python3.10 -I -m venv {fresh.project}/.venv ",
        f"{fresh.python} -m bert_pretrain.environment install \\,test '' ",
    ]
    assert done.returncode == 0


def test_init_takes_the_python_that_it_is_told(fresh):
    fresh.this_python("python3")
    fresh.this_python("my_python")
    done = fresh.init(f"--python={fresh.bin}/my_python")
    assert f"{fresh.bin}/my_python -I -m venv {fresh.project}/.venv" in done.stderr


def test_init_puts_the_environment_where_it_is_told(fresh):
    fresh.this_python("python3")
    done = fresh.init("--print-python", BERT_PRETRAIN_VENV="/elsewhere/environment")
    assert "python3 -I -m venv /elsewhere/environment" in done.stderr
    assert done.stdout == "/elsewhere/environment/bin/python\n"


def test_init_hands_the_requested_tensorflow_on(fresh):
    fresh.this_python("python3")
    assert f"install '' {DEFAULT} \n" in fresh.init(f"--tensorflow={DEFAULT}").stderr


def test_init_refuses_an_unsupported_tensorflow_in_one_line(fresh):
    fresh.this_python("python3")
    done = fresh.init("--tensorflow=2.5.3")
    assert done.returncode == 2
    assert done.stderr == (
        "error: TensorFlow 2.5.3 is not supported; TensorFlow 2.6.5 to 2.21.0 on Python 3.8 to 3.13 are: "
        "bash init_tf.sh --tensorflow=2.21.0\n"
    )


def test_init_names_the_pythons_of_a_tensorflow_that_none_of_those_found_can_have(fresh):
    fresh.program("python3", f'case "$*" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"')
    done = fresh.init(f"--tensorflow={UNFIT}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: found Python {versions.this_python()}; TensorFlow {UNFIT} has wheels for 3.")
    assert line.endswith(f"or: bash init_tf.sh --tensorflow={DEFAULT}")


def test_a_venv_keeps_its_tensorflow(fresh):
    fresh.this_python("python3")
    fresh.existing_venv(versions.TESTED[versions.this_python()][0])
    done = fresh.init("--test")
    assert f"Installing TensorFlow {versions.TESTED[versions.this_python()][0]}" not in done.stderr
    assert " -m venv " not in done.stderr
    assert "[cpu,mlperf,test]" in done.stderr


def test_a_venv_with_another_tensorflow_is_made_anew_with_its_extras(fresh):
    fresh.this_python("python3")
    fresh.existing_venv("2.7.4")
    done = fresh.init("--test", f"--tensorflow={DEFAULT}")
    lines = done.stderr.splitlines()
    assert lines[0] == f"{fresh.project}/.venv has TensorFlow 2.7.4; it is made anew for TensorFlow {DEFAULT}"
    assert lines[2].endswith(f" -m venv --clear {fresh.project}/.venv ")
    assert lines[3] == f"{fresh.python} -m bert_pretrain.environment install \\,test\\,mlperf {DEFAULT} "


def test_the_tensorflow_of_a_vendor_in_the_active_environment_is_kept(fresh, tmp_path):
    active = tmp_path / "active"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(active)], check=True)
    site = next((active / "lib").glob("python3*")) / "site-packages"
    (site / "tensorflow.py").write_text(VENDORS)
    (site / "tensorflow-2.6.5+corex.3.1.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.6.5+corex.3.1\n"
    (site / "tensorflow-2.6.5+corex.3.1.dist-info/METADATA").write_text(metadata)
    done = fresh.init("--print-python", PATH=f"{active}/bin:{fresh.bin}")
    assert done.stdout == f"{active}/bin/python\n"
    assert done.stderr.splitlines()[0] == f"Keeping the TensorFlow of {active}/bin/python"
    assert f"--constraint {active}/bert_pretrain-constraints.txt" in done.stderr
    assert "cpu" not in done.stderr and ".venv" not in done.stderr


def test_init_lets_uv_bring_a_python(fresh):
    fresh.program("uv", "exit 0")
    done = fresh.init()
    assert f"{fresh.bin}/uv venv --quiet --seed --python 3.12 {fresh.project}/.venv" in done.stderr


def test_init_fetches_uv_with_a_python_that_is_too_new(fresh):
    fresh.program("python3", TOO_NEW)
    done = fresh.init()
    assert f"python3 -I -m venv {fresh.project}/.cache/uv" in done.stderr
    assert "uv venv --quiet --seed --python 3.13" in done.stderr


def test_init_says_what_to_install_where_there_is_no_python(fresh):
    done = fresh.init()
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Python 3.8 to 3.13 was found: install python3.12 with its venv module")


def test_init_names_the_missing_venv_module(fresh):
    fresh.program("python3.10", f'case "$*" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"')
    done = fresh.init()
    assert done.returncode == 1
    assert "apt-get install python3.10-venv" in done.stderr


def test_init_refuses_an_unknown_argument(fresh):
    done = fresh.init("--horovood")
    assert (done.returncode, "--horovood" in done.stderr) == (2, True)


def test_help_shows_all_of_the_first_comment(fresh):
    shown = fresh.init("--help").stdout
    assert shown.startswith("Sets the Python environment up.") and shown.rstrip().endswith("for the scripts.")


def test_init_ends_with_what_training_has_here_but_not_for_the_scripts(fresh):
    path = f"{fresh.bin}/python3"
    answers = f"*report*) echo 'GPUs: one' >&2 ;; *-m*) ;; *) echo /env && echo {path} ;;"
    for name in ("python", "python3"):
        fresh.program(name, f'case "$*" in {answers} esac')
    environ = {"DRY_RUN": "", "BERT_PRETRAIN_SCRIPT": ""}
    done = fresh.init(**environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"GPUs: one\nReady: {path}\n")
    done = fresh.init("--print-python", **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")
