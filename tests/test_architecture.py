"""Who may import whom: an acyclic table of rooms, held against every import statement.

python -m tests.test_architecture rewrites the table of docs/architecture.md.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bert_pretrain"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports: made from tests/test_architecture.py -->", "<!-- end of imports -->"

# Room (a package, or a module that is a room of its own) -> the rooms that it may import, all of which stand before it.
MAY_IMPORT: dict[str, str] = {
    "system": "",
    "tensorflow_compat": "system",
    "storage": "system",
    "distributed": "system tensorflow_compat",
    "environment": "system",
    "config.option": "system",
    "optim.settings": "config.option",
    "config": "system config.option optim.settings",
    "cli": "config config.option system",
    "data.shards.tfrecord": "system",
    "data.vocab": "system",
    "data.masking": "data.vocab",
    "data.findings": "",
    "data": "config data.findings data.masking data.shards.tfrecord data.vocab storage system tensorflow_compat",
    "kernels": "config system tensorflow_compat",
    "model": "config kernels tensorflow_compat",
    "optim": "config kernels optim.settings tensorflow_compat",
    "run_files": "config config.option data.shards.tfrecord storage system",
    "mlperf": "config run_files system",
    "hugging_face": "data.vocab system",
    "make_data": "cli config config.option data.findings data.masking data.shards.tfrecord data.vocab system",
    "check_data": (
        "cli config config.option data data.findings data.shards.tfrecord data.vocab run_files storage system "
        "tensorflow_compat"
    ),
    "report": "cli config mlperf run_files storage system",
    "checkpoints": "config distributed hugging_face kernels model optim run_files storage system tensorflow_compat",
    "train": (
        "checkpoints config config.option data data.findings data.vocab distributed kernels mlperf model optim "
        "run_files storage system tensorflow_compat"
    ),
    "inference": (
        "checkpoints config config.option data data.vocab hugging_face make_data model run_files system "
        "tensorflow_compat"
    ),
    "export": (
        "checkpoints cli config data.vocab hugging_face inference model run_files storage system tensorflow_compat"
    ),
    "fill_mask": "cli config inference storage system tensorflow_compat",
    "run": "cli config config.option distributed export inference run_files system tensorflow_compat train",
    "launch": "cli config distributed system",
    "pretrain_text": "cli config config.option data.findings data.vocab hugging_face launch make_data run_files system",
}
# A library and the files that may import it.
OWNERS = {
    "horovod": ("distributed/world.py",),
    "mpi4py": ("distributed/mpi_world.py", "system/worker_pool.py"),
    "absl": ("cli.py",),
    "mlperf_logging": ("mlperf/mllog.py",),
    "matplotlib": ("check_data/report.py", "report/figures.py"),
    "jinja2": ("report/page.py",),
    "fsspec": ("storage/remote.py",),
    "tenacity": ("storage/remote.py",),
}
# Rooms that a program imports before TensorFlow, or without it, and what of them is an exception.
WITHOUT_TENSORFLOW = (
    "cli config environment launch make_data mlperf optim.settings pretrain_text report run_files storage system"
).split()
WITH_TENSORFLOW = {"run_files.events"}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


def room_of(module: str) -> str:
    """The room with the longest name that a module, or a name in it, is in; empty without one."""
    parts = module.split(".")
    return next((room for n in range(len(parts), 0, -1) if (room := ".".join(parts[:n])) in MAY_IMPORT), "")


def imported_names(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the package; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module: str) -> None:
    own, path = room_of(module), MODULES[module]
    assert own, f"{module} is in no room of the table"
    for name in imported_names(path):
        first, _, rest = name.partition(".")
        if first == "bert_pretrain" and not rest.startswith("__"):
            other = room_of(rest)
            assert other == own or other in MAY_IMPORT[own].split(), f"{own} must not import {other or name}"
        if first in OWNERS:
            assert str(path.relative_to(PACKAGE)) in OWNERS[first], f"only {OWNERS[first]} may import {first}"


def test_the_table_is_acyclic_and_has_no_room_that_is_gone() -> None:
    seen: set[str] = set()
    for room, allowed in MAY_IMPORT.items():
        assert set(allowed.split()) <= seen, f"{room} may import only rooms that stand before it"
        assert any(f"{module}.".startswith(f"{room}.") for module in MODULES), f"{room} is gone"
        seen.add(room)


def test_data_model_and_optim_never_import_each_other() -> None:
    for room in ("data", "model", "optim"):
        assert not {"data", "model", "optim"} & set(MAY_IMPORT[room].split())


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python does not list its standard library")
def test_config_needs_nothing_but_the_standard_library() -> None:
    for module in MODULES:
        if module.startswith("config.") or module == "optim.settings":
            names = {name.partition(".")[0] for name in imported_names(MODULES[module])}
            assert names <= {"__future__", "bert_pretrain", *sys.stdlib_module_names}, module


def test_these_rooms_do_without_tensorflow() -> None:
    inside = [
        module
        for module in MODULES
        if any(f"{module}.".startswith(f"{room}.") for room in WITHOUT_TENSORFLOW) and module not in WITH_TENSORFLOW
    ]
    program = "\n".join(f"import bert_pretrain.{module}" for module in inside)
    program += "\nimport sys\nprint('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def with_table(text: str) -> str:
    """The page with the table of imports rewritten."""
    lines = ["| room | may import |", "|---|---|"]
    for name, allowed in MAY_IMPORT.items():
        lines.append(f"| `{name}` | {', '.join(f'`{other}`' for other in allowed.split()) or 'nothing'} |")
    before, _, after = text.partition(BEGIN)
    return "\n".join([before + BEGIN, "", *lines, "", END]) + after.partition(END)[2]


def test_the_page_has_the_same_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "run: python -m tests.test_architecture"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
