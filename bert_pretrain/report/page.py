"""The page of a report: figures, and tables of results, settings and details, in the template page.html.

A table has a column for each run; its values are text. The styles are those of page.css.
"""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from bert_pretrain import __version__
from bert_pretrain.config import training
from bert_pretrain.report.figures import draw_figures
from bert_pretrain.report.run_folder import EVALUATION_KINDS, TRAINING_KINDS, ReportedRun, is_number, section
from bert_pretrain.run_files.metrics import METRICS_JSONL

_NONE = "\N{EN DASH}"
# Name, key of results.json or two of them, format. Names in brackets are columns of the results row.
_ACCURACY = (
    ("masked-LM accuracy (acc)", "masked_lm_accuracy", "{:.6f}"),
    ("masked-LM accuracy beyond the 100 most frequent tokens", "masked_lm_accuracy_rare", "{:.6f}"),
    ("masked-LM accuracy before training", "initial_masked_lm_accuracy", "{:.6f}"),
    ("masked-LM loss", "masked_lm_loss", "{:.4f}"),
    ("next-sentence accuracy", "next_sentence_accuracy", "{:.4f}"),
    ("next-sentence loss", "next_sentence_loss", "{:.4f}"),
    ("evaluation examples", "eval_examples", "{:,}"),
)
_SPEED = (
    ("updates/s (fps)", "updates_per_second", "{:.6f}"),
    ("examples/s", "examples_per_second", "{:.2f}"),
    ("tokens/s, without padding", "tokens_per_second", "{:.0f}"),
    ("seconds per update, median", "step_seconds.median", "{:.3g}"),
    ("seconds per update, 95th percentile", "step_seconds.p95", "{:.3g}"),
    ("longest pause for a checkpoint, seconds", "checkpoint_pause_seconds.max", "{:.3g}"),
    ("padding, share of computed tokens", "padding_share", "{:.2%}"),
    ("waiting for data, share of time", "input_wait_share", "{:.2%}"),
    ("utilization of the device", "utilization", "{:.1%}"),
)


class RunSummary(NamedTuple):
    """What the head of the page says about a run."""

    name: str
    folder: str
    state: str
    accuracy: str
    updates: str
    share: float  # of the updates, 0 to 1
    speed: str
    last_record: str
    model: str
    command: str
    starts: list[StartRow]
    notes: list[str]


class StartRow(NamedTuple):
    """One start of a run."""

    time: str
    update: str
    where: str
    changed: str


class Row(NamedTuple):
    """A line of a table."""

    name: str
    cells: list[str]  # one for each run
    is_marked: bool = False  # differs from the default, or between the runs


class Table(NamedTuple):
    """A table with a column for each run."""

    title: str
    rows: list[Row]


def render_page(runs: Sequence[ReportedRun], title: Optional[str] = None) -> str:
    """The HTML of the page. ValueError if Jinja2 or Matplotlib is not installed."""
    try:
        import jinja2
    except ImportError:
        raise ValueError("a report needs Jinja2, which is not installed; run: bash init_tf.sh --plot") from None
    folder = Path(__file__).parent
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    groups, remarks = draw_figures(runs)
    return template.render(
        css=(folder / "page.css").read_text(encoding="utf-8"),
        title=title or (" and ".join(run.name for run in runs) if len(runs) < 3 else f"{len(runs)} runs"),
        time=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        runs=[_summary(run) for run in runs],
        groups=groups,
        remarks=remarks,
        results=result_tables(runs),
        settings=setting_tables(runs),
        details=detail_tables(runs),
    )


def _summary(run: ReportedRun) -> RunSummary:
    total = run.setting("optim", "num_train_steps")
    is_known = is_number(total) and total > 0
    return RunSummary(
        run.name,
        run.folder,
        _end_text(run),
        _accuracy_text(run),
        f"{run.updates():,} of {total:,}" if is_known else f"{run.updates():,}",
        min(1.0, run.updates() / total) if is_known else 1.0,
        _speed_text(run),
        _last_record_text(run),
        _model_text(run),
        _command_text(run),
        _start_rows(run),
        run.notes,
    )


def _end_text(run: ReportedRun) -> str:
    """How the run ended, or that it has not."""
    if run.is_locked:
        return "in progress"
    return str(run.results.get("end", "no results")).replace("_", " ")


def device_text(run: ReportedRun) -> str:
    """What the run was trained on, like "CPU" or "2 GPUs, NVIDIA A100"; empty where run.json does not tell."""
    name, ranks = run.description.get("device"), run.description.get("ranks")
    if not isinstance(name, str) or not is_number(ranks):
        return ""
    if name == "cpu":
        return "CPU" if ranks == 1 else f"CPU, {ranks} ranks"
    return ("GPU" if ranks == 1 else f"{ranks} GPUs") + (f", {name}" if name != "gpu" else "")


def _accuracy_text(run: ReportedRun) -> str:
    """The masked-LM accuracy of the last evaluation, from results.json, else metrics.jsonl."""
    value = run.results.get("masked_lm_accuracy")
    return _number_text(value if is_number(value) else run.last(EVALUATION_KINDS, "masked_lm_accuracy"), "{:.2%}")


def _speed_text(run: ReportedRun) -> str:
    """Examples per second, of the whole start where results.json has it, else the latest in metrics.jsonl."""
    value = run.results.get("examples_per_second")
    return _number_text(value if is_number(value) else run.last(TRAINING_KINDS, "examples_per_second"), "{:,.1f}")


def _model_text(run: ReportedRun) -> str:
    """The model and the device in a few words, as far as run.json tells."""
    model = section(run.description, "model")
    layers, hidden = model.get("num_hidden_layers"), model.get("hidden_size")
    network = f"{layers} layers \N{MULTIPLICATION SIGN} {hidden}" if layers and hidden else ""
    return ", ".join(filter(None, (network, device_text(run))))


def _last_record_text(run: ReportedRun) -> str:
    """When metrics.jsonl was last added to."""
    return _time_text(run.points[-1].get("time")) if run.points else f"{METRICS_JSONL} is empty"


def _command_text(run: ReportedRun) -> str:
    """The command line of the last start, a flag on each line; empty where it is not known."""
    words = run.description.get("command")
    quoted = map(shlex.quote, map(str, words)) if isinstance(words, list) else ()
    return " ".join(f"\\\n  {word}" if word.startswith("--") else word for word in quoted)


def _start_rows(run: ReportedRun) -> list[StartRow]:
    """All starts of a run, the first one first."""
    found = run.description.get("starts")
    rows = []
    for start in (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ():
        changed = section(start, "changed").items()
        told = ", ".join(
            f"{name}: {_value_text(pair[0])} \N{RIGHTWARDS ARROW} {_value_text(pair[1])}"
            for name, pair in changed
            if isinstance(pair, list) and len(pair) == 2
        )
        ranks = start.get("ranks", "?")
        where = f"{start.get('host', '?')}, process {start.get('pid', '?')}, {ranks} rank{'s' if ranks != 1 else ''}"
        rows.append(StartRow(_time_text(start.get("time")), _value_text(start.get("update")), where, told or _NONE))
    return rows


def _time_text(seconds: Any) -> str:
    """Seconds since the epoch as local date and time."""
    if not is_number(seconds) or not 0 < seconds < 2**33:
        return _NONE
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def result_tables(runs: Sequence[ReportedRun]) -> list[Table]:
    """The values of results.json; a dash for what one run does not have, no row for what none has."""
    extent = [
        Row("end", [_end_text(run) for run in runs]),
        Row("device", [device_text(run) or _NONE for run in runs]),
        Row("updates", [f"{run.updates():,}" for run in runs]),
        Row("training examples", [_number_text(run.results.get("examples"), "{:,}") for run in runs]),
        Row("memory of rank 0 at most", [_memory_text(run) for run in runs]),
    ]
    tables = [
        Table("Accuracy", [_result_row(runs, *value) for value in _ACCURACY]),
        Table("Extent", extent),
        Table("Speed", [_result_row(runs, *value) for value in _SPEED]),
    ]
    known = [
        table._replace(rows=[row for row in table.rows if any(cell != _NONE for cell in row.cells)]) for table in tables
    ]
    return [table for table in known if table.rows]


def _result_row(runs: Sequence[ReportedRun], name: str, key: str, text: str) -> Row:
    """The row of a key of results.json, or of two, like "step_seconds.median"."""
    outer, _, inner = key.partition(".")
    values = [section(run.results, outer).get(inner) if inner else run.results.get(outer) for run in runs]
    return Row(name, [_number_text(value, text) for value in values])


def _memory_text(run: ReportedRun) -> str:
    value = run.results.get("peak_memory_bytes")
    return f"{value / 2**30:.2f} GiB" if is_number(value) else _NONE


def setting_tables(runs: Sequence[ReportedRun]) -> list[Table]:
    """A table for each part of the settings; marked: not the default, or not the same in all runs."""
    tables = []
    for part, config in training.PARTS.items():
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        values = [section(section(run.description, "settings"), part) for run in runs]
        rows = []
        for name in dict.fromkeys([*defaults, *(name for one in values for name in one)]):
            found = [one[name] for one in values if name in one]
            if not found:
                continue
            is_marked = any(value != defaults.get(name) for value in found) or any(v != found[0] for v in found)
            rows.append(Row(f"--{name}", [_value_text(one.get(name)) for one in values], is_marked))
        tables.append(Table(config.__doc__.strip().rstrip("."), rows))
    return [table for table in tables if table.rows]


def detail_tables(runs: Sequence[ReportedRun]) -> list[Table]:
    """Model, data, device and versions."""
    contents = [run.description for run in runs]
    labels = {"ranks": "ranks", "compute_dtype": "precision", "backend": "kernels"}
    devices = [
        {"device": device_text(run) or None, **{label: run.description.get(key) for key, label in labels.items()}}
        for run in runs
    ]
    data = [{**_data_details(one, "train", "training"), **_data_details(one, "eval", "evaluation")} for one in contents]
    tables = [
        _detail_table("Model", [section(one, "model") for one in contents]),
        _detail_table("Data", data),
        _detail_table("Device", devices),
        _detail_table("Versions", [section(one, "versions") for one in contents]),
    ]
    return [table for table in tables if table.rows]


def _detail_table(title: str, values: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for name in dict.fromkeys(name for one in values for name in one):
        found = [one.get(name) for one in values]
        if any(value is not None for value in found):
            rows.append(Row(name, [_value_text(value) for value in found], any(value != found[0] for value in found)))
    return Table(title, rows)


def _data_details(content: dict[str, Any], key: str, label: str) -> dict[str, Any]:
    data = section(section(content, "data"), key)
    paths = data.get("paths")
    folder = str(paths[0]).rpartition("/")[0] if isinstance(paths, list) and paths else None
    shards = len(paths) if isinstance(paths, list) else None
    values = {
        "records": data.get("records"),
        "shards": shards,
        "fingerprint": data.get("fingerprint"),
        "folder": folder,
    }
    return {f"{label}: {name}": value for name, value in values.items() if value is not None}


def _number_text(value: Any, text: str) -> str:
    return text.format(value) if is_number(value) else _NONE


def _value_text(value: Any) -> str:
    return _NONE if value is None else f"{value:,}" if type(value) is int and abs(value) > 9999 else str(value)
