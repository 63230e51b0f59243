"""Who may import whom: the layers of docs/architecture.md, held by reading every import statement."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bert_pretrain"

# Layer -> layers of this package that it may import besides itself.
MAY_IMPORT = {
    "files": set(),
    "compat": set(),
    "estimator": {"compat"},
    "config": {"files"},
    "processes": {"files"},
    "worker_pool": {"files", "processes"},
    "cli": {"config"},
    "world": {"processes"},
    "mpi_world": {"processes", "world"},
    "connection": {"processes", "world", "mpi_world"},
    "data": {"config", "files", "compat"},
    "make_data": {"config", "data.tfrecord", "data.vocab", "worker_pool", "files", "cli"},
    "check_data": {"config", "data", "worker_pool", "files", "cli"},
    "kernels": {"config", "files", "compat"},
    "model": {"config", "kernels"},
    "optim": {"config", "kernels"},
    "train": {"config", "files", "compat", "estimator", "processes", "world", "data", "kernels", "model", "optim"},
    "run": {"cli", "config", "processes", "connection", "train"},
    "supervisor": set(),
    "launch": {"files", "supervisor"},
    "environment": {"files"},
}
# A library and the files that may import it.
OWNERS = {"horovod": ("world.py",), "mpi4py": ("mpi_world.py", "worker_pool.py"), "absl": ("cli.py",)}


def imported_modules(path: Path) -> set[str]:
    """Full names of everything that a file imports, wherever the statement stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer; write the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path: Path) -> None:
    layer = layer_of(path)
    for name in imported_modules(path):
        first, _, rest = name.partition(".")
        if first == "bert_pretrain" and layer != "__init__":
            parts = rest.split(".")
            if parts[0].startswith("__"):
                continue
            assert layer in MAY_IMPORT, f"{path.name}: layer {layer} is not in the table"
            allowed = {layer, *MAY_IMPORT[layer]}
            assert {parts[0], ".".join(parts[:2])} & allowed, f"{layer} must not import {name}"
        if first in OWNERS:
            assert str(path.relative_to(PACKAGE)) in OWNERS[first], f"only {OWNERS[first]} may import {first}"


def test_config_needs_nothing_but_the_standard_library() -> None:
    allowed = {"__future__", "bert_pretrain", "dataclasses", "enum", "json", "os", "typing", "collections"}
    for path in (PACKAGE / "config").glob("*.py"):
        assert {name.partition(".")[0] for name in imported_modules(path)} <= allowed, path.name


def test_no_file_outgrows_the_head() -> None:
    long = {p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 350}
    assert not long
