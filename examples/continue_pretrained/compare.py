"""Prints the held-out masked-LM accuracy of runs, side by side, from their metrics.jsonl.

python compare.py RUN_DIR [RUN_DIR ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    runs = {run.name: evaluations(run) for run in parser.parse_args().runs}
    points = [point for found in runs.values() for point in found.values()]
    print(
        f"masked-LM accuracy, %, of {points[0]['eval_examples']} held-out examples "
        f"(the most frequent token alone: {100 * points[0]['most_frequent_token']:.1f}), after updates:"
    )
    updates = sorted({update for found in runs.values() for update in found})
    print(f"| weights at the start | {' | '.join(map(str, updates))} |")
    print("|---|" + "---|" * len(updates))
    for name, found in runs.items():
        cells = [f"{100 * found[one]['masked_lm_accuracy']:.1f}" if one in found else "" for one in updates]
        print(f"| {name} | {' | '.join(cells)} |")


def evaluations(run: Path) -> dict[int, dict[str, Any]]:
    """The evaluations of a run, by update."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    return {point["update"]: point for point in points if point["kind"] == "eval"}


if __name__ == "__main__":
    main()
