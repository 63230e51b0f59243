"""Who may import whom, and how large files and functions may be; every import statement is read.

python -m tests.test_architecture rewrites the table of docs/architecture.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bert_pretrain"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports: made from tests/test_architecture.py -->", "<!-- end of imports -->"

# Package or module -> what of this project it may import besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "files": set(),
    "compat": set(),
    "graph_variables": set(),
    "config": {"files"},
    "processes": {"files"},
    "stderr": set(),
    "tensorflow_import": {"stderr"},
    "stop": set(),
    "directory_lock": set(),
    "script": {"directory_lock"},
    "worker_pool": {"files", "processes"},
    "native_library": {"files"},
    "estimator": {"compat"},
    "cli": {"config"},
    "world": {"processes", "stop"},
    "mpi_world": {"processes", "world"},
    "storage": {"files"},
    "data": {"config", "files", "compat", "storage"},
    "heartbeat": {"processes"},
    "connection": {"processes", "stop", "world", "mpi_world", "heartbeat"},
    "make_data": {
        *"config data.masking data.tfrecord data.vocab directory_lock files cli worker_pool native_library".split(),
    },
    "check_data": {"config", "data", "worker_pool", "files", "cli", "tensorflow_import", "storage"},
    "hugging_face": {"data.vocab"},
    "kernels": {"config", "files", "compat", "native_library"},
    "model": {"config", "graph_variables", "kernels"},
    "optim": {"config", "graph_variables", "kernels"},
    "mlperf_reference": {"config"},
    "train": {
        *"config directory_lock files compat estimator processes stop world data kernels model optim".split(),
        *("hugging_face", "mlperf_reference", "storage"),
    },
    "report": {"cli", "config", "files", "mlperf_reference", "storage"},
    "inference": {"config", "data", "hugging_face", "make_data.tokenization", "model", "train"},
    "export": {
        *"cli config data.vocab files hugging_face inference model storage tensorflow_import train".split(),
    },
    "fill_mask": {"cli", "config", "tensorflow_import", "inference", "storage"},
    "after_training": {"config", "files", "train", "inference", "export"},
    "run": {
        *"after_training cli config connection processes stderr stop tensorflow_import train".split(),
    },
    "recipe": {"config"},
    "pretrain_text": {
        *("cli", "config", "data.vocab", "directory_lock", "files", "hosts", "hugging_face", "launch", "recipe")
    },
    "launch": {"config", "files", "processes", "supervisor", "hosts", "division"},
    "hosts": {"files", "processes"},
    "division": {"cli", "config"},
    "supervisor": {"heartbeat"},
    "environment": {"files"},
}
# A library and the files that may import it.
OWNERS = {
    "horovod": ("world.py",),
    "mpi4py": ("mpi_world.py", "worker_pool.py"),
    "absl": ("cli.py",),
    "mlperf_logging": ("mlperf/mllog.py",),
    "matplotlib": ("check_data/histogram.py", "report/drawing.py"),
    "jinja2": ("report/page.py",),
    "fsspec": ("storage/remote.py",),
}
MAX_MODULE_LINES, MIN_MODULE_LINES = 250, 25
# Smaller modules, each with the reason.
SMALL_MODULES = {
    "__init__.py": "a docstring, or what a package offers",
    "__main__.py": "an entry point",
    "backend.py": "the enumeration that kernels, model and optimizers share without importing each other",
}
MAX_FUNCTION_LINES, P90_FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 35, 20, 8

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Full names of everything that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the package; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    own = name_of(path)
    for name in imports(path):
        first, _, rest = name.partition(".")
        parts = rest.split(".")
        if first == "bert_pretrain" and own != "__init__" and not parts[0].startswith("__"):
            assert own in MAY_IMPORT, f"{own} is not in the table"
            assert {parts[0], ".".join(parts[:2])} & {own, *MAY_IMPORT[own]}, f"{own} must not import {name}"
        if first in OWNERS:
            assert str(path.relative_to(PACKAGE)) in OWNERS[first], f"only {OWNERS[first]} may import {first}"


def test_the_table_names_what_exists() -> None:
    exists = {name_of(path) for path in MODULES} - {"__init__"}
    assert set(MAY_IMPORT) == exists
    for allowed in MAY_IMPORT.values():
        assert {name.partition(".")[0] for name in allowed} <= exists


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    graph = {
        name: {found for full in imports(path, top_level_only=True) for found in (full, full.rpartition(".")[0])}
        & set(names) - {name}
        for name, path in names.items()
    }
    while graph:
        leaves = {name for name, imported in graph.items() if not imported & set(graph)}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: imported for name, imported in graph.items() if name not in leaves}


def test_config_needs_nothing_but_the_standard_library() -> None:
    allowed = {
        "__future__",
        "bert_pretrain",
        "dataclasses",
        "enum",
        "json",
        "os",
        "typing",
        "collections",
        "unicodedata",
    }
    for path in (PACKAGE / "config").glob("*.py"):
        assert {name.partition(".")[0] for name in imports(path)} <= allowed, path.name


def test_modules_are_neither_large_nor_fragments() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: number for name, number in lines.items() if number > MAX_MODULE_LINES}
    small = {name: number for name, number in lines.items() if number < MIN_MODULE_LINES}
    assert not {name: number for name, number in small.items() if Path(name).name not in SMALL_MODULES}


def test_functions_are_short() -> None:
    lengths = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths[f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    assert not {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES}
    ordered = sorted(lengths.values())
    assert ordered[len(ordered) // 2] <= MEDIAN_FUNCTION_LINES
    assert ordered[len(ordered) * 9 // 10] <= P90_FUNCTION_LINES


def with_table(text: str) -> str:
    """The page with the table of imports rewritten."""
    lines = ["| package or module | may import |", "|---|---|"]
    for name, allowed in MAY_IMPORT.items():
        lines.append(f"| `{name}` | {', '.join(f'`{other}`' for other in sorted(allowed)) or 'nothing'} |")
    before, _, after = text.partition(BEGIN)
    return "\n".join([before + BEGIN, "", *lines, "", END]) + after.partition(END)[2]


def test_the_page_has_the_same_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "run: python -m tests.test_architecture"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
