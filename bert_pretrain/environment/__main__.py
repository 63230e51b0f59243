"""python -m bert_pretrain.environment VERB [EXTRAS [VERSION]]: what init_tf.sh asks about a Python, and orders.

EXTRAS is a list like data,test or ''. VERSION is the TensorFlow that the user requested, or ''. The Python is the one
that runs this. Yes is exit code 0, no is 1, an error is 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bert_pretrain.environment import facts, install, versions
from bert_pretrain.environment import report as machine_report
from bert_pretrain.environment.plan import EXTRAS
from bert_pretrain.system import streams


def fits(extras: Sequence[str], requested: str) -> int:
    """Can this Python have the TensorFlow from PyPI?"""
    try:
        versions.choose_version(requested, versions.this_python())
    except ValueError:
        return 1
    return 0


def explain(extras: Sequence[str], requested: str) -> int:
    """Prints the newest Python for the TensorFlow and, if this Python cannot have it, the reason and remedy."""
    release = versions.supported_release(requested or versions.RELEASES[-1].version)
    streams.print_answer(versions.supported_pythons(release)[-1])
    try:
        versions.choose_version(requested, versions.this_python())
    except ValueError as error:
        streams.print_answer(str(error))
    return 0


def ready(extras: Sequence[str], requested: str) -> int:
    """Was this environment set up with the extras and the TensorFlow, by the project as it is now?"""
    return 0 if install.is_ready(extras, requested) else 1


def suitable(extras: Sequence[str], requested: str) -> int:
    """Has this environment a TensorFlow for GPUs or of a vendor, which must be kept?"""
    return 0 if facts.tensorflow_for_gpus(requested) else 1


def changed(extras: Sequence[str], requested: str) -> int:
    """Has this environment another TensorFlow than the requested one? Prints its extras if so."""
    other = install.other_tensorflow(requested)
    if other is None:
        return 1
    facts.print_to_stderr(f"{sys.prefix} has TensorFlow {other}; it is made anew for TensorFlow {requested}")
    streams.print_answer(",".join(install.stamped_extras()))
    return 0


def set_up(extras: Sequence[str], requested: str) -> int:
    """Installs what is missing; DRY_RUN=1 prints the commands."""
    install.install_extras(extras, requested, dry=os.environ.get("DRY_RUN") == "1")
    return 0


def report(extras: Sequence[str], requested: str) -> int:
    """Says on stderr what training has here, and what is missing."""
    for line in machine_report.report_lines():
        facts.print_to_stderr(line)
    return 0


def tested(extras: Sequence[str], requested: str) -> int:
    """Prints the tested combinations, one a line: name, TensorFlow, Python, bounds of other packages."""
    for python, releases in versions.TESTED.items():
        for version in releases:
            bounds = versions.supported_release(version).bounds
            streams.print_answer(" ".join([versions.combination(version, python), version, python, *bounds]))
    return 0


VERBS = {
    "fits": fits,
    "explain": explain,
    "ready": ready,
    "suitable": suitable,
    "changed": changed,
    "install": set_up,
    "report": report,
    "tested": tested,
}


def main(arguments: Sequence[str]) -> int:
    """Runs the verb. Returns the exit code."""
    streams.secure_streams()
    verb, text, requested = [*arguments, "", ""][:3]
    extras = [name for name in text.split(",") if name]
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        facts.print_to_stderr(f"error: no such extra: {', '.join(unknown)}; there are {', '.join(EXTRAS)}")
        return 2
    try:
        return VERBS[verb](extras, versions.full_version(requested) if requested else "")
    except ValueError as error:
        facts.print_to_stderr(f"error: {error}")
        return 2
    except OSError as error:
        facts.print_to_stderr(f"error: {error.filename}: {error.strerror}; the environment is in {sys.prefix}")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
