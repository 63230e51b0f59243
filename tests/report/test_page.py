"""The page in a real browser, and its values against the files of the run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from bert_pretrain.report import figures, run_folder
from bert_pretrain.report.page import device_text, result_tables
from bert_pretrain.run_files import results as train_results
from tests.report import browser
from tests.report.runs import end, write_run

pytest.importorskip("matplotlib", reason="Matplotlib is not installed: bash init_tf.sh --plot")
pytest.importorskip("jinja2", reason="Jinja2 is not installed: bash init_tf.sh --plot")


def report(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "bert_pretrain.report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: a whole one, one of another batch without results, one that is MLPerf's."""
    folder = tmp_path_factory.mktemp("report")
    runs = [
        write_run(folder / "whole"),
        write_run(folder / "other", updates=20, batch=64, results=False),
        write_run(folder / "<mlperf>", updates=30, batch=256, mlperf=True),
    ]
    path = folder / "new" / "report.html"
    done = report(*runs, f"--output={path}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "note: other: results.json is missing" in done.stdout
    return path


@pytest.fixture(scope="module")
def page() -> Iterator[browser.Page]:
    path = browser.executable()
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(browser.NAMES)}")
    with browser.opened(path) as opened:
        yield opened


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_errors_or_requests(page: browser.Page, html: Path, width: int, scheme: str) -> None:
    page.show(html.as_uri(), width, scheme)
    requests = [event["params"]["request"]["url"] for event in page.events if event["method"].endswith("WillBeSent")]
    assert {url for url in requests if not url.startswith("data:")} == {html.as_uri()}
    problems = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [event for event in page.events if event["method"] in problems] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 300) == (scheme == "dark")


def test_every_figure_has_its_lines(page: browser.Page, html: Path) -> None:
    page.show(html.as_uri(), 1440)
    found = page.evaluate("""
        [...document.querySelectorAll("figure")].map(figure => [figure.id, Number(figure.dataset.lines),
            [...figure.querySelectorAll("svg g[id*='-line-']")].filter(line => {
                const path = line.querySelector("path"), box = path.getBoundingClientRect();
                const inside = figure.getBoundingClientRect();
                return path.getTotalLength() > 0 && getComputedStyle(path).stroke.startsWith("rgb")
                    && box.left >= inside.left && box.right <= inside.right;
            }).length])""")
    kinds = [
        kind.name for kinds in figures.FIGURES.values() for kind in kinds if kind.name not in ("tokens", "input-wait")
    ]
    assert [name for name, _, _ in found] == [f"figure-{kind}" for kind in kinds]
    assert all(drawn == lines > 0 for _, lines, drawn in found), found
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == page.evaluate(
        "document.querySelectorAll('[id]').length"
    ), "ids are unique"


def test_a_caption_names_the_run_of_each_value(page: browser.Page, html: Path) -> None:
    page.show(html.as_uri(), 1440)
    found = page.evaluate("document.querySelector('#figure-mlm-accuracy figcaption').innerText").split()
    values = ["training", "20.00%", "evaluation", "20.00%"]
    assert found[:10] == ["whole", "training", "40.00%", "evaluation", "40.00%", "other", *values]


def test_the_text_of_a_figure_can_be_selected(page: browser.Page, html: Path) -> None:
    page.show(html.as_uri(), 1440)
    assert "training examples" in page.evaluate("document.querySelector('#figure-mlm-loss svg').textContent")


def test_it_prints(page: browser.Page, html: Path) -> None:
    page.show(html.as_uri(), 1000)
    assert page.pdf().startswith(b"%PDF")


def test_the_page_names_what_is_missing_and_escapes_names(html: Path) -> None:
    text = html.read_text()
    assert "&lt;mlperf&gt;" in text and "<mlperf>" not in text
    assert "Not drawn, as no run has values: Tokens per second, without padding." in text
    assert "Not drawn, as all values are 0: Waiting for data, share of time." in text
    assert "<script" not in text and "http://" not in text.replace("http://www.w3.org/", "")


def test_the_results_are_those_of_the_results_row(tmp_path: Path) -> None:
    row = train_results.results_row(end(40, 32)).splitlines()
    names, cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in (row[0], row[2]))
    found = [line for table in result_tables(run_folder.read_runs([str(write_run(tmp_path))])) for line in table.rows]
    for name, cell in list(zip(names, cells))[2:]:
        label = {"acc": "masked-LM accuracy (acc)", "fps (updates/s)": "updates/s (fps)"}.get(name, name)
        assert [line.cells for line in found if line.name.startswith(label)] == [[cell]], name


@pytest.mark.parametrize(
    ("device", "ranks", "words"),
    [
        ("cpu", 1, "CPU"),
        ("cpu", 4, "CPU, 4 ranks"),
        ("Tesla V100", 1, "GPU, Tesla V100"),
        ("gpu", 2, "2 GPUs"),
        (None, 1, ""),
    ],
)
def test_the_device_in_words(tmp_path: Path, device: Optional[str], ranks: int, words: str) -> None:
    (run,) = run_folder.read_runs([str(write_run(tmp_path))])
    run.description.update(device=device, ranks=ranks)
    assert device_text(run) == words


def test_the_reference_of_mlperf_is_where_its_own_data_have_it(tmp_path: Path) -> None:
    pytest.importorskip("mlperf_logging", reason="mlperf-logging is not installed: bash init_tf.sh --mlperf")
    runs = run_folder.read_runs([str(write_run(tmp_path, batch=256, mlperf=True))])
    goal, remark = figures._mlperf_goal(runs, figures._Axis(runs))
    assert goal.value == 0.72 and goal.x == pytest.approx(2.55e6, rel=5e-3)
    assert "72% after 2,5" in remark and "at batch 256" in remark


def test_thinned_lines_keep_their_extremes() -> None:
    points = [(x, float(x % 7)) for x in range(9000)]
    points[4567] = (4567, 1e6)
    thinned = figures.thin_points(points)
    assert len(thinned) <= figures.MAX_POINTS and (4567, 1e6) in thinned
    assert thinned == sorted(thinned) and set(thinned) <= set(points)


def test_errors_are_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", updates=2)
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ([], "error: no run given; usage: python -m bert_pretrain.report RUN_DIR [RUN_DIR ...]"),
        ([tmp_path / "none"], f"error: {tmp_path / 'none'}: no such folder; give the --output_dir of a run"),
        ([run, "--output="], "error: --output is empty; give the name of the page, such as report.html"),
        (
            [run, f"--output={tmp_path}/file/x"],
            f"error: --output: {tmp_path}/file/x cannot be written ({tmp_path}/file: Not a directory)",
        ),
    ):
        done = report(*arguments)
        assert (done.returncode, done.stderr) == (2, f"{message}\n")


def test_a_report_needs_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None  # an import of it fails\n"
        "from bert_pretrain.report.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, str(write_run(tmp_path / "run", updates=2)), f"--output={tmp_path}/a.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.html").read_text().endswith("</html>")
