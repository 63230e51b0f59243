"""Runs an installation and remembers it: a stamp in the environment holds what it was set up with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from bert_pretrain.environment import facts, pins
from bert_pretrain.environment.facts import Facts, print_to_stderr
from bert_pretrain.environment.plan import Step, plan_steps
from bert_pretrain.environment.versions import PROJECT, choose_version, is_same_release, this_python
from bert_pretrain.system import files
from bert_pretrain.system.locks import locked_file


def install_extras(extras: Sequence[str], requested: str = "", dry: bool = False) -> None:
    """Installs what is missing for the extras into this interpreter's environment.

    `requested` is a TensorFlow version or ''; `dry` prints the commands. SystemExit says which command failed.
    """
    own = is_own()
    with contextlib.nullcontext() if dry else _locked():
        if is_ready(extras, requested):
            return
        before = _read_stamp()
        extras = sorted({*extras, *before.get("extras", ())})
        found = _gather_facts(own, requested, before.get("device"))
        if "horovod" in extras and "horovod" not in found.installed:
            _check_compiler()
        steps = plan_steps(extras, found)
        if dry:
            print_to_stderr("\n".join(step.line() for step in steps))
            return
        with files.atomic_write(found.constraints) as file:
            file.write(_pins(own, found.version))
        print_to_stderr(f"Setting up {Path(sys.prefix).name if own else sys.prefix}")
        for step in steps:
            _run(step)
        stamp = {"key": _key(found.version), "tensorflow": found.version, "device": found.device, "extras": extras}
        files.write_json(str(_stamp_path()), stamp)


def is_ready(extras: Sequence[str], requested: str = "") -> bool:
    """Whether the project, as it is now, set this environment up with the extras and the requested TensorFlow."""
    stamp = _read_stamp()
    version = stamp.get("tensorflow")
    if version is None or other_tensorflow(requested):
        return False
    return stamp.get("key") == _key(version) and set(extras) <= set(stamp.get("extras", ()))


def other_tensorflow(requested: str) -> Optional[str]:
    """The version in this environment if another one is requested, else None."""
    version = _current_version()
    return version if requested and version and not is_same_release(version, requested) else None


def stamped_extras() -> list[str]:
    """The extras that this environment was set up with."""
    return _read_stamp().get("extras", [])


def is_own() -> bool:
    """Whether this interpreter's environment belongs to the project: .venv, or BERT_PRETRAIN_VENV."""
    return Path(sys.prefix).resolve() == Path(os.environ.get("BERT_PRETRAIN_VENV") or PROJECT / ".venv").resolve()


def _current_version() -> Optional[str]:
    """The TensorFlow of this environment; a stamp from before it named one leaves the installed distribution."""
    return _read_stamp().get("tensorflow") or facts.tensorflow_version()


def _gather_facts(own: bool, requested: str, device: Optional[str]) -> Facts:
    version = _current_version()
    if version is None or other_tensorflow(requested):
        version = choose_version(requested, this_python())
    return Facts(
        python=sys.executable,
        constraints=str(Path(sys.prefix) / "bert_pretrain-constraints.txt"),
        device=facts.choose_device(device) if own else None,
        version=version,
        installed=facts.installed(),
        mpirun=None if own else shutil.which("mpirun"),
    )


def _pins(own: bool, version: str) -> str:
    if own:
        return pins.pins(version, this_python())
    return pins.pins_around(facts.installed(), version, this_python())


def _check_compiler() -> None:
    missing = " and ".join(tool for tool in ("g++", "make") if not shutil.which(tool))
    if missing:
        raise SystemExit(
            f"error: --horovod: Horovod is compiled on this machine, which lacks {missing}; install g++ and make "
            "(Debian and Ubuntu: apt-get install g++ make), or train without --horovod on one GPU or the CPU"
        )


def _stamp_path() -> Path:
    return Path(sys.prefix) / "bert_pretrain.json"


def _read_stamp() -> dict[str, Any]:
    try:
        return json.loads(_stamp_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _key(version: str) -> str:
    """Changes with all that an installation depends on."""
    names = f"{PROJECT}\n{sys.version}\n{version}\n".encode()
    paths = [pins.nearest_file(version, this_python()), PROJECT / "setup.py"]
    return hashlib.sha256(names + b"\n".join(path.read_bytes() for path in paths)).hexdigest()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with locked_file(str(Path(sys.prefix) / "bert_pretrain.lock")) as is_alone:
        if not is_alone:
            print_to_stderr(
                f"note: {sys.prefix} is on a file system without locks; do not set it up twice at the same time"
            )
        yield


def _run(step: Step) -> None:
    """Runs a step, its output to the log. SystemExit with the end of the output if it fails."""
    log = Path(sys.prefix) / "bert_pretrain-install.log"
    print_to_stderr(step.says)
    begin = time.monotonic()
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"$ {step.line()}\n")
        file.flush()
        environ = {**os.environ, **step.environ}
        code = subprocess.run(step.command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environ).returncode
    if code and step.if_it_fails:
        print_to_stderr(f"{step.if_it_fails}; the output is in {log}")
    elif code:
        print_to_stderr("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-15:]))
        raise SystemExit(f"error: exit code {code} from: {step.says}; the whole output is in {log}")
    if time.monotonic() - begin > 10:
        print_to_stderr(f"  done in {time.monotonic() - begin:.0f} s")
