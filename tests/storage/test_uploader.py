"""Uploads in the background."""

from __future__ import annotations

import threading
import time

from bert_pretrain.storage.uploader import Upload, Uploader


def test_of_those_that_wait_the_newest_of_a_kind_is_made_and_all_are_discarded() -> None:
    gate, made, discarded = threading.Event(), [], []
    uploader = Uploader(lambda line: None)

    def submit(kind: str, name: str) -> None:
        def make() -> None:
            gate.wait(10)
            made.append(name)

        uploader.submit(kind, Upload(name, make, lambda: discarded.append(name)))

    submit("a", "a1")
    while uploader._waiting:  # until the thread has it
        time.sleep(0.001)
    for kind, name in (("a", "a2"), ("b", "b1"), ("a", "a3")):
        submit(kind, name)
    assert (made, discarded) == ([], ["a2"])
    gate.set()
    assert uploader.finish() is None
    assert made == ["a1", "b1", "a3"] and sorted(discarded) == ["a1", "a2", "a3", "b1"]


def test_a_failure_is_told_and_counts_until_the_next_of_its_kind_succeeds() -> None:
    lines: list[str] = []
    uploader = Uploader(lines.append)

    def fail(error: Exception) -> None:
        raise error

    uploader.submit("a", Upload("one", lambda: fail(OSError(5, "away")), lambda: None))
    assert uploader.finish() == "one is not uploaded (away)"
    assert lines == ["warning: one is not uploaded (away); training goes on, and the next one is tried"]
    uploader.submit("b", Upload("other", lambda: None, lambda: None))
    assert uploader.finish() == "one is not uploaded (away)"
    uploader.submit("a", Upload("two", lambda: None, lambda: None))
    assert uploader.finish() is None
    uploader.submit("a", Upload("three", lambda: fail(KeyError("a fault of ours")), lambda: None))
    assert uploader.finish() == "three is not uploaded ('a fault of ours')"
