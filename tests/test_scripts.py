"""What the scripts would run, compared as text. A stand-in for init_tf.sh names a Python."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import left_out

ROOT = Path(__file__).resolve().parent.parent
SEED_ARGUMENTS = [
    "--input_files_dir=shards/train",
    "--init_checkpoint=ckpt/model.ckpt-28252",
    "--eval_files_dir=shards/eval",
    "--train_batch_size=6",
    "--bert_config_file=bert_config.json",
]


@pytest.fixture
def project(tmp_path):
    """A copy of the scripts, in a folder with a space in its name, whose environment is /env."""
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copytree(ROOT / "configs", folder / "configs")
    _stand_in(folder, "/env/bin/python")
    return folder


def _stand_in(folder, python, code=0):
    (folder / "init_tf.sh").write_text(f'echo "init_tf.sh $*" >&2\necho {python}\nexit {code}\n')


def _run(project, script, *arguments, cwd=None, **environ):
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return subprocess.run(
        ["bash", str(project / "scripts" / script), *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "DRY_RUN": "1", **environ},
        cwd=cwd or project,
        capture_output=True,
        text=True,
        check=False,
    )


def _quoted(path):
    return str(path).replace(" ", "\\ ")


def test_one_gpu_with_flags_puts_deepsparkhubs_defaults_first(project):
    done = _run(project, "run_1card_FPS.sh", *SEED_ARGUMENTS)
    flagfile = f"--flagfile={_quoted(project / 'configs/run/seed_1card.flags')}"
    assert done.stdout == " ".join(["/env/bin/python -m bert_pretrain.run", flagfile, *SEED_ARGUMENTS]) + "\n"
    assert done.stderr == "init_tf.sh --print-python\n"
    assert done.returncode == 0


def test_one_gpu_without_flags_makes_and_trains_the_demo(project, tmp_path):
    done = _run(project, "run_1card_FPS.sh", cwd=tmp_path)
    demo = _quoted(project / ".cache/demo")
    assert done.stdout.splitlines() == [
        "/env/bin/python -m bert_pretrain.make_data --demo",
        f"/env/bin/python -m bert_pretrain.run --flagfile={_quoted(project / 'configs/run/demo.flags')} "
        f"--input_files_dir={demo}/train --eval_files_dir={demo}/eval --bert_config_file={demo}/bert_config.json "
        f"--vocab_file={demo}/vocab.txt --output_dir={_quoted(tmp_path / 'results/demo_1card')}",
    ]


def test_the_cache_folder_is_the_users_when_given(project):
    done = _run(project, "run_1card_FPS.sh", BERT_PRETRAIN_CACHE="/big/cache")
    assert "--input_files_dir=/big/cache/demo/train" in done.stdout


def test_many_gpus_with_flags(project):
    _stand_in(project, sys.executable)
    done = _run(project, "run_multi_card_FPS.sh", *SEED_ARGUMENTS, "--max_restarts=2", NP="1", OMP_NUM_THREADS="1")
    pattern = (
        r"\S*mpirun -np 1( --allow-run-as-root)? --use-hwthread-cpus --bind-to none "
        rf"{re.escape(sys.executable)} -m bert_pretrain.run --horovod --intra_op_threads=\d+ "
        rf"'--flagfile={re.escape(str(project / 'configs/run/seed_multi_card.flags'))}' "
        + re.escape(" ".join(SEED_ARGUMENTS))
    )
    assert re.fullmatch(pattern, done.stdout.strip()), done.stdout
    assert done.stderr == "init_tf.sh --print-python --horovod\n"


def test_many_gpus_without_flags_train_the_demo_into_its_own_folder(project):
    _stand_in(project, sys.executable)
    done = _run(project, "run_multi_card_FPS.sh", NP="2")
    assert "make_data --demo" in done.stdout.splitlines()[0]
    assert f"--output_dir={project}/results/demo_multi_card" in done.stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("run_multi_card_FPS.sh", "bert_pretrain.launch"),
        ("make_data.sh", "bert_pretrain.make_data.script"),
        ("pretrain_text.sh", "bert_pretrain.pretrain_text"),
    ],
)
def test_a_module_with_several_commands_is_named_where_no_environment_stands_yet(project, script, module):
    assert _run(project, script, "text", "out").stdout.startswith(f"/env/bin/python -m {module} ")


def test_data_from_a_dump_is_made_step_by_step(project):
    _stand_in(project, sys.executable)
    (project / "vocab.txt").touch()
    done = _run(project, "make_data.sh", "dump.xml.bz2", "wi ki", "--dupe_factor=2", NP="3", VOCAB_FILE="vocab.txt")
    assert done.stderr == "init_tf.sh --print-python --data\n"
    make_data = f"{sys.executable} -m bert_pretrain.make_data --num_processes=3"
    of_shards = f"{make_data} --vocab_file=vocab.txt --dupe_factor=2"
    assert done.stdout.splitlines() == [
        "mkdir -p -- 'wi ki'",
        "rm -rf -- 'wi ki/extracted.partial'",
        f"{sys.executable} -m bert_pretrain.make_data.text.wikipedia_dump dump.xml.bz2 'wi ki/extracted.partial' 3",
        "mv -- 'wi ki/extracted.partial/pages.json' 'wi ki/pages.json'",
        "sync -f -- 'wi ki/extracted.partial'",
        "mv -- 'wi ki/extracted.partial' 'wi ki/extracted'",
        f"{make_data} --num_held_out=10000 --make_text '--input_file=wi ki/extracted' '--output_dir=wi ki/text' "
        "--held_out=mlperf",
        f"{of_shards} '--input_file=wi ki/text/train' '--output_dir=wi ki/train' --num_shards=500",
        f"{of_shards} '--input_file=wi ki/text/eval' '--output_dir=wi ki/eval' --num_shards=1 --mode=exact "
        "--num_picked_examples=10000",
        f"{sys.executable} -m bert_pretrain.check_data '--input_files_dir=wi ki/train,wi ki/eval' "
        "--vocab_file=vocab.txt",
    ]
    assert not (project / "wi ki").exists()


def test_a_failing_environment_ends_the_script_with_its_exit_code(project):
    _stand_in(project, "", code=3)
    for script in ("run_1card_FPS.sh", "run_multi_card_FPS.sh", "run_tests.sh"):
        assert _run(project, script, "--a=b").returncode == 3


def test_tests_without_horovod_and_torch_say_what_is_left_out(project):
    done = _run(project, "run_tests.sh", "-x")
    begin = "/env/bin/python -m pytest -rs -n auto -m"
    assert done.stdout == f"{begin} not\\ slow\\ and\\ not\\ horovod\\ and\\ not\\ interop -x\n"
    lines = [line.split(", ")[0] for line in left_out("not slow and not horovod and not interop")]
    assert lines == [f"Not run: tests marked {kind}" for kind in ("horovod", "interop", "slow")]
    for arguments in (["--slow"], ["tests/test_a.py::test_b"]):
        assert f"{begin} not\\ horovod\\ and\\ not\\ interop" in _run(project, "run_tests.sh", *arguments).stdout


def test_tests_are_found_from_the_users_folder(project):
    (project / "scripts/test_a.py").touch()
    done = _run(project, "run_tests.sh", "test_a.py::test_b", "-k", "word", cwd=project / "scripts")
    assert f"{_quoted(project / 'scripts/test_a.py')}::test_b -k word" in done.stdout


def test_the_exit_code_is_the_programs(project, tmp_path):
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\nexit 7\n")
    failing.chmod(0o755)
    _stand_in(project, failing)
    for script in ("run_1card_FPS.sh", "run_multi_card_FPS.sh", "run_tests.sh"):
        assert _run(project, script, "--a=b", DRY_RUN="").returncode == 7


def test_the_matrix_prints_a_row_for_each_combination(project, tmp_path):
    shutil.copytree(ROOT / "bert_pretrain/environment", project / "bert_pretrain/environment")
    shutil.copytree(ROOT / "bert_pretrain/system", project / "bert_pretrain/system")
    shutil.copy(ROOT / "bert_pretrain/__init__.py", project / "bert_pretrain")
    (project / "init_tf.sh").write_text('mkdir -p "$BERT_PRETRAIN_VENV"; echo "$*" >>"$BERT_PRETRAIN_VENV/asked"\n')
    (project / "scripts/run_tests.sh").write_text('echo "$*"; echo "3 passed, 1 skipped in 2.00s"\n')
    for name in ("python3.8", "python3.12"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"DRY_RUN": "", "NO_DEMO": "1", "PATH": path, "PYENV_ROOT": "/nowhere"}
    done = _run(project, "run_matrix.sh", "tf2.6.5-py3.8", "tf2.21.0-py3.12", "--", "-x", "tests/optim", **environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == [
        "| tf2.6.5-py3.8 | | | | 3 passed, 1 skipped in 2.00s |",
        "| tf2.21.0-py3.12 | | | | 3 passed, 1 skipped in 2.00s |",
    ]
    matrix = project / ".cache/matrix"
    assert f"--python={tmp_path}/python3.8 --tensorflow=2.6.5 " in (matrix / "tf2.6.5-py3.8/asked").read_text()
    assert [log.read_text().splitlines()[0] for log in matrix.glob("*/tests.log")] == ["-x tests/optim"] * 2


def test_modules_in_the_current_folder_are_not_executed(tmp_path):
    """The launcher's child, too, which is this Python in the place of mpirun's ranks."""
    for module in ("tqdm", "crc32c", "numpy", "absl"):
        (tmp_path / f"{module}.py").write_text("open('executed', 'w').close()\n")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ.pop("PYTHONSAFEPATH", None)
    for module in ("launch", "check_data", "make_data", "run"):
        command = [sys.executable, "-m", f"bert_pretrain.{module}", "--help"]
        done = subprocess.run(command, cwd=tmp_path, env={**environ, "DRY_RUN": "1"}, capture_output=True, text=True)
        assert done.returncode == 0 and not (tmp_path / "executed").exists(), (module, done.stderr)


def test_a_current_folder_that_was_removed_is_no_obstacle(tmp_path):
    (tmp_path / "gone").mkdir()
    command = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {sys.executable} -m bert_pretrain.run --help"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environ["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and "--output_dir" in done.stdout, done.stderr


def test_the_package_is_found_in_the_current_folder_where_it_is_not_installed(tmp_path):
    shutil.copytree(ROOT / "bert_pretrain", tmp_path / "bert_pretrain")
    with (tmp_path / "bert_pretrain" / "environment" / "__init__.py").open("a") as file:
        file.write("print('the copy')\n")
    command = [sys.executable, "-m", "bert_pretrain.environment", "tested"]
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.stdout.startswith("the copy\n") and done.returncode == 0, done.stderr


def test_a_script_with_closed_streams_and_no_path_gives_its_programs_both(tmp_path: Path) -> None:
    script, out = tmp_path / "script.sh", tmp_path / "out"
    program = f"import os; os.fstat(0), os.fstat(1); open({str(out)!r}, 'w').write(os.environ['PATH'])"
    script.write_text(f'. {ROOT}/scripts/_launch.sh\n{sys.executable} -c "{program}"\n')
    command = ["env", "-i", shutil.which("bash") or "bash", "-c", f". {script} <&- >&-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "/bin" in out.read_text()
