import errno
import fcntl
import json
import shutil
import sys

import pytest

from bert_pretrain.environment import __main__ as verbs
from bert_pretrain.environment import facts, install, versions
from bert_pretrain.environment.plan import Step
from tests.system.test_locks import refuse_locks

TESTED = versions.TESTED[versions.this_python()]


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An environment of this project without anything in it."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("BERT_PRETRAIN_VENV", str(tmp_path))
    monkeypatch.setattr(facts, "installed", dict)
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """The steps of installations, none of which is run."""
    steps = []
    monkeypatch.setattr(install, "_run", steps.append)
    return steps


def _stamp(prefix, version=TESTED[-1], **values):
    values = {"key": install._key(version), "tensorflow": version, "device": "cpu", "extras": [], **values}
    (prefix / "bert_pretrain.json").write_text(json.dumps(values))


def test_an_environment_is_ready_for_what_its_stamp_says(prefix):
    assert not install.is_ready([])
    _stamp(prefix, extras=["test"])
    assert install.is_ready([])
    assert install.is_ready(["test"])
    assert install.is_ready([], TESTED[-1])
    assert not install.is_ready([], "2.7.4")
    assert not install.is_ready(["horovod", "test"])


@pytest.mark.parametrize(
    "text", ["", "{", '{"key": "of an older setup.py", "tensorflow": "2.15.1", "extras": ["test"]}']
)
def test_a_stale_or_broken_stamp_is_not_ready(prefix, text):
    (prefix / "bert_pretrain.json").write_text(text)
    assert not install.is_ready([])


def test_installing_stamps_the_environment_and_keeps_earlier_extras(prefix, ran):
    _stamp(prefix, key="old", extras=["mlperf"])
    install.install_extras(["test"])
    assert json.loads((prefix / "bert_pretrain.json").read_text())["extras"] == ["mlperf", "test"]
    num_steps = len(ran)
    install.install_extras(["mlperf"])
    assert len(ran) == num_steps > 0


def test_an_environment_without_locks_is_set_up_with_a_note(prefix, ran, monkeypatch, capsys):
    monkeypatch.setattr(fcntl, "flock", refuse_locks(errno.ENOLCK))
    install.install_extras([])
    assert install.is_ready([])
    assert f"note: {prefix} is on a file system without locks" in capsys.readouterr().err


def test_an_environment_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "file"))
    assert verbs.main(["install", ""]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/file/bert_pretrain.lock: Not a directory; the env")


def test_a_requested_tensorflow_is_remembered(prefix, ran):
    install.install_extras([], TESTED[0])
    assert json.loads((prefix / "bert_pretrain.json").read_text())["tensorflow"] == TESTED[0]
    assert f"tensorflow=={TESTED[0]}\n" in (prefix / "bert_pretrain-constraints.txt").read_text()
    install.install_extras(["test"])
    assert json.loads((prefix / "bert_pretrain.json").read_text())["tensorflow"] == TESTED[0]


def test_the_default_is_the_newest_tested_release(prefix, ran):
    install.install_extras([])
    assert json.loads((prefix / "bert_pretrain.json").read_text())["tensorflow"] == TESTED[-1]


def test_an_environment_without_a_stamp_keeps_its_tensorflow(prefix, ran, monkeypatch):
    monkeypatch.setattr(facts, "installed", lambda: {"tensorflow-cpu": "2.13.1"})
    install.install_extras([])
    assert json.loads((prefix / "bert_pretrain.json").read_text())["tensorflow"] == "2.13.1"


def test_another_tensorflow_is_named_with_the_extras_to_install_again(prefix, capsys):
    _stamp(prefix, extras=["horovod", "test"])
    assert verbs.main(["changed", "", TESTED[-1]]) == 1
    assert verbs.main(["changed", "", ""]) == 1
    assert verbs.main(["changed", "", "2.7"]) == 0
    out, err = capsys.readouterr()
    assert out == "horovod,test\n"
    assert err == f"{prefix} has TensorFlow {TESTED[-1]}; it is made anew for TensorFlow 2.7.4\n"


def test_a_dry_installation_prints_its_commands_and_changes_nothing(prefix, ran, capsys):
    install.install_extras([], dry=True)
    assert "-m bert_pretrain.environment.checked_install" in capsys.readouterr().err
    assert not ran and not list(prefix.iterdir())


def test_a_failed_step_shows_the_end_of_its_output_and_leaves_no_stamp(prefix, monkeypatch, capsys):
    failing = Step("Installing nothing", [sys.executable, "-c", "print('the cause'); raise SystemExit(5)"])
    monkeypatch.setattr(install, "plan_steps", lambda *_: [failing])
    with pytest.raises(SystemExit, match="error: exit code 5 from: Installing nothing"):
        install.install_extras([])
    assert "the cause" in capsys.readouterr().err
    assert not install.is_ready([])


def test_a_step_that_may_fail_leaves_a_warning(prefix, monkeypatch, capsys):
    failing = Step("Compiling", [sys.executable, "-c", "raise SystemExit(5)"], if_it_fails="warning: not compiled")
    monkeypatch.setattr(install, "plan_steps", lambda *_: [failing])
    install.install_extras([])
    assert "warning: not compiled; the output is in" in capsys.readouterr().err
    assert install.is_ready([])


def test_horovod_without_a_compiler_names_what_to_install(prefix, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"lacks g\+\+ and make; install .*apt-get install g\+\+ make"):
        install.install_extras(["horovod"])
