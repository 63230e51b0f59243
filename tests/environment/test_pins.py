import itertools
import re
import runpy
from pathlib import Path

import pytest
import setuptools

from bert_pretrain.environment import pins, versions

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "constraints").glob("tf*.txt"))


def _names(text):
    return {pins.canonical(re.split("[=<]", line)[0]) for line in text.splitlines() if not line.startswith("#")}


def test_each_tested_combination_has_a_file_and_no_other_has():
    tested = {
        versions.combination(version, python) for python in versions.TESTED for version in versions.TESTED[python]
    }
    assert {path.stem for path in FILES} == tested


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_pin_is_exact(path):
    for line in path.read_text().splitlines()[1:]:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_requirement_is_pinned(path, monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(ROOT / "setup.py"))
    version, python = re.fullmatch(r"tf(.+)-py(.+)", path.stem).groups()
    required = set()
    for line in itertools.chain(given["install_requires"], *given["extras_require"].values()):
        name, _, marker = line.partition(";")
        bounds = re.findall(r"python_version (\S+) '3\.(\d+)'", marker)
        compare = {">=": int.__ge__, "<": int.__lt__, "==": int.__eq__}
        if all(compare[sign](versions.minor_version(python)[1], int(number)) for sign, number in bounds):
            required.add(pins.canonical(re.split(r"[\[=<>]", name)[0]))
    text = path.read_text()
    assert required - _names(text) == set()
    assert f"tensorflow=={version}\n" in text and f"tensorflow-cpu=={version}\n" in text


def test_a_tested_combination_has_its_own_pins():
    assert pins.pins("2.6.5", "3.8") == (ROOT / "constraints/tf2.6.5-py3.8.txt").read_text()


def test_another_release_takes_the_nearest_files_pins_less_those_that_depend_on_tensorflow():
    lines = pins.pins("2.9.3", "3.8").splitlines()
    assert lines[:4] == ["tensorflow==2.9.3", "tensorflow-cpu==2.9.3", "protobuf<3.20", "numpy<1.24"]
    names = _names("\n".join(lines[4:]))
    assert {"tokenizers", "crc32c", "tqdm", "mpi4py", "pytest"} <= names
    assert not names & pins.TENSORFLOW_DEPENDENT
    assert pins.nearest_file("2.9.3", "3.8").stem == "tf2.6.5-py3.8"
    assert pins.nearest_file("2.19.1", "3.11").stem == "tf2.21.0-py3.11"


def test_pins_move_nothing_that_a_kept_environment_has():
    text = pins.pins_around({"numpy": "1.23.5", "tensorflow": "2.6.5+corex.3.1", "tqdm": "4"}, "2.6.5+corex.3.1", "3.8")
    lines = text.splitlines()
    assert lines[:4] == ["numpy==1.23.5", "tensorflow==2.6.5+corex.3.1", "tqdm==4", "protobuf<3.20"]
    assert len([line for line in lines if re.match("numpy|tensorflow|tqdm", line)]) == 3
    # Older where what is kept needs it: huggingface-hub of the file wants a newer click than NVIDIA's container has.
    assert any(line.startswith("tokenizers<=") for line in lines)
    assert all("==" in line for line in lines[:3]) and not any("==" in line for line in lines[3:])
