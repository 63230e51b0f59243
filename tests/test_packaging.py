"""The wheel: console scripts, types and C++ sources, used far from the project's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str, **environ: str) -> str:
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install WHEEL` puts into an environment; the libraries are this environment's."""
    folder = tmp_path_factory.mktemp("packaging")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"  # a copy, because setuptools leaves a build folder beside setup.py
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "bert_pretrain"):
        (source / name).symlink_to(ROOT / name)
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    run(*pip, "install", "--no-deps", "--target", str(folder / "installed"), str(wheel))
    return folder / "installed"


@pytest.mark.parametrize(
    ("script", "first_line"),
    [
        ("bert-pretrain", "python -m bert_pretrain.run: trains, evaluates, or both."),
        ("bert-make-data", "Text -> vocabulary -> shards: python -m bert_pretrain.make_data"),
        ("bert-check-data", "Shards -> report and manifest.json: python -m bert_pretrain.check_data"),
        ("bert-report", "Runs -> one self-contained HTML page: python -m bert_pretrain.report"),
        ("bert-export", "Checkpoint -> Hugging Face folder, SavedModel, TF1 weights: python -m bert_pretrain.export"),
        ("bert-fill-mask", "Asks a model for masked words: python -m bert_pretrain.fill_mask MODEL"),
    ],
)
def test_console_scripts_show_their_help(installed: Path, script: str, first_line: str) -> None:
    shown = run(str(installed / "bin" / script), "--help", PYTHONPATH=str(installed))
    assert shown.startswith(first_line)


@pytest.mark.slow
def test_the_demo_is_made_by_the_installed_script(installed: Path, tmp_path: Path) -> None:
    environ = {"PYTHONPATH": str(installed), "BERT_PRETRAIN_CACHE": str(tmp_path / "cache")}
    made = run(str(installed / "bin" / "bert-make-data"), "--demo", f"--output_dir={tmp_path / 'demo'}", **environ)
    assert "training examples" in made
    checked = run(
        str(installed / "bin" / "bert-check-data"), f"--input_files_dir={tmp_path / 'demo' / 'train'}", **environ
    )
    assert "verdict: sound" in checked


def test_types_and_sources_are_in_the_wheel(installed: Path) -> None:
    package = installed / "bert_pretrain"
    assert (package / "py.typed").is_file()
    sources = ROOT / "bert_pretrain" / "kernels" / "native" / "sources"
    assert {path.name for path in (package / "kernels/native/sources").iterdir()} == {p.name for p in sources.iterdir()}
