import re
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain.environment import __main__ as verbs
from bert_pretrain.environment import versions

ROOT = Path(__file__).resolve().parents[2]


def test_every_python_has_a_default_that_has_wheels_for_it():
    assert list(versions.TESTED) == ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"]
    for python, tested in versions.TESTED.items():
        assert versions.choose_version("", python) == tested[-1]
        for version in tested:
            assert python in versions.supported_pythons(versions.find_release(version))


def test_releases_are_in_order_without_gaps():
    minors = [versions.minor_version(release.version)[1] for release in versions.RELEASES]
    assert minors == list(range(6, 22))


@pytest.mark.parametrize(
    ("requested", "python"), [("2.15.1", "3.9"), ("2.15.0", "3.11"), ("2.6.5", "3.8"), ("2.20.0", "3.13")]
)
def test_a_requested_release_is_taken(requested, python):
    assert versions.choose_version(requested, python) == requested


def test_a_release_without_its_patch_number_is_the_newest():
    assert versions.full_version("2.15") == "2.15.1"
    assert versions.full_version("2.15.0") == "2.15.0"


@pytest.mark.parametrize("version", ["2.5.3", "2.22.0", "1.15", "newest"])
def test_an_unsupported_release_gets_one_line_with_the_range_and_a_command(version):
    with pytest.raises(ValueError) as caught:
        versions.full_version(version)
    assert str(caught.value) == (
        f"TensorFlow {version} is not supported; TensorFlow 2.6.5 to 2.21.0 on Python 3.8 to 3.13 are: "
        "bash init_tf.sh --tensorflow=2.21.0"
    )


def test_a_release_without_wheels_for_a_python_gets_one_line_with_both_remedies():
    with pytest.raises(ValueError) as caught:
        versions.choose_version("2.15.1", "3.12")
    assert str(caught.value) == (
        "found Python 3.12; TensorFlow 2.15.1 has wheels for 3.9, 3.10, 3.11: install python3.11 with its venv module, "
        f"or: bash init_tf.sh --tensorflow={versions.TESTED['3.12'][-1]}"
    )


@pytest.mark.parametrize("python", ["3.7", "3.14"])
def test_an_unsupported_python_is_named_with_what_is_supported(python):
    with pytest.raises(
        ValueError, match=rf"found Python {python}; supported are TensorFlow 2.6.5 to 2.21.0 on Python 3.8"
    ):
        versions.choose_version("", python)


def test_a_vendors_suffix_makes_no_other_release():
    assert versions.is_same_release("2.6.5+corex.3.1", "2.6.5")
    assert not versions.is_same_release("2.6.5", "2.6.4")
    assert versions.find_release("2.6.5+corex.3.1").version == "2.6.5"


def test_setup_py_and_init_tf_name_the_same_range():
    setup = (ROOT / "setup.py").read_text()
    assert 'python_requires=">=3.8,<3.14"' in setup
    oldest, newest = versions.RELEASES[0].version, versions.minor_version(versions.RELEASES[-1].version)[1]
    assert set(re.findall(r"tensorflow\S*?>=([\d.]+),<2\.(\d+)", setup)) == {(oldest, str(newest + 1))}
    init = (ROOT / "init_tf.sh").read_text()
    assert f"from 2.6 to 2.{newest}" in init and "python3.13 python3.12" in init


def test_the_tested_combinations_are_printed_for_scripts(capsys):
    assert verbs.main(["tested"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tf2.6.5-py3.8 2.6.5 3.8 protobuf<3.20 numpy<1.24"
    assert len(lines) == sum(map(len, versions.TESTED.values()))


def test_the_verbs_answer_for_this_python(capsys):
    assert verbs.main(["fits", "", versions.TESTED[versions.this_python()][0]]) == 0
    unfit = "2.21.0" if versions.this_python() in ("3.8", "3.9") else "2.6.5"
    assert verbs.main(["fits", "", unfit]) == 1
    assert verbs.main(["explain", "", unfit]) == 0
    newest, reason = capsys.readouterr().out.splitlines()
    assert newest == versions.supported_pythons(versions.find_release(unfit))[-1]
    assert reason.startswith(f"found Python {versions.this_python()}; TensorFlow {unfit} has wheels for")
    assert verbs.main(["explain", "", "2.5"]) == 2


def test_an_unknown_extra_is_refused(capsys):
    assert verbs.main(["install", "test,tests"]) == 2
    assert "no such extra: tests" in capsys.readouterr().err


def test_questions_need_the_standard_library_only():
    """-I -S: no site-packages; the project's folder is the only addition."""
    program = f"import sys; sys.path.append({str(ROOT)!r}); from bert_pretrain.environment import __main__ as m; "
    program += "sys.exit(m.main(['fits']))"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", program], check=False).returncode == 0
