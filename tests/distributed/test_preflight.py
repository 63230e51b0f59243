"""Ranks that compare what they are about to do: who speaks, who leaves, what is named."""

from __future__ import annotations

from typing import Any

import pytest

from bert_pretrain.distributed import preflight
from bert_pretrain.distributed.stop import Interrupted, StopRequest
from bert_pretrain.distributed.world import World


class OneOf(World):
    """A rank of several, whose others answer what they are told to."""

    def __init__(self, rank: int, others: list[Any]) -> None:
        """`others` are the answers of all but this rank, by rank."""
        self.rank, self.size, self._others = rank, len(others) + 1, others

    def allgather(self, value: Any) -> list[Any]:
        return [*self._others[: self.rank], value, *self._others[self.rank :]]


def fail(message: str) -> None:
    raise ValueError(message)


def test_what_is_wrong_everywhere_is_said_once() -> None:
    with pytest.raises(ValueError, match=r"^no such directory$"):
        preflight.on_all_ranks(OneOf(0, ["no such directory"]), lambda: fail("no such directory"))


def test_what_is_wrong_on_one_rank_is_said_by_root_with_its_number() -> None:
    with pytest.raises(ValueError, match=r"^rank 2 of 3: no such directory$"):
        preflight.on_all_ranks(OneOf(0, [None, "no such directory"]), lambda: 5)
    with pytest.raises(SystemExit) as ended:
        preflight.on_all_ranks(OneOf(1, [None, None]), lambda: fail("no such directory"))
    assert ended.value.code == 2


def test_where_nothing_is_wrong_each_rank_has_its_own_result() -> None:
    assert preflight.on_all_ranks(OneOf(1, [None]), lambda: 5) == 5


def test_what_root_finds_is_known_to_all_without_their_looking() -> None:
    assert preflight.from_root(World(), lambda: 5) == 5

    class Told(OneOf):
        def allgather(self, value: Any) -> list[Any]:
            assert value is None  # neither an error nor a result
            return [self._others.pop(0), value]

    told = Told(1, [None])
    told._others = [None, 5]
    assert preflight.from_root(told, lambda: fail("another rank looked")) == 5


def test_root_s_error_needs_no_number() -> None:
    with pytest.raises(ValueError, match=r"^no checkpoint$"):
        preflight.from_root(OneOf(0, [None]), lambda: fail("no checkpoint"))


def test_a_rank_that_is_asked_to_stop_ends_all_of_them_without_an_error() -> None:
    with pytest.raises(Interrupted):
        preflight.on_all_ranks(OneOf(0, [preflight._INTERRUPTED]), lambda: 5)
    stopped = OneOf(1, [None])
    stopped.stop = StopRequest()
    stopped.stop.requested = True
    with pytest.raises(Interrupted):
        preflight.on_all_ranks(stopped, lambda: fail("nobody works any more"))
    stopped.stop.has_updates = True  # which a checkpoint saves first
    assert preflight.on_all_ranks(stopped, lambda: 5) == 5


FACTS = {"--seed": 0, "--amp": True, "model hidden_size": 8, "version of numpy": "1.26.4"}


def test_ranks_that_agree_go_on() -> None:
    preflight.check_same(OneOf(0, [FACTS, FACTS]), FACTS)


def test_the_first_rank_that_differs_is_named_with_all_that_matters() -> None:
    other = {"--seed": 1, "--amp": False, "model hidden_size": 16, "version of numpy": "1.24"}
    with pytest.raises(ValueError) as error:
        preflight.check_same(OneOf(0, [FACTS, other, {}]), FACTS)
    assert str(error.value) == (
        "rank 2 differs from rank 0 in --seed (1, rank 0 has 0), --amp (False, rank 0 has True), "
        "model hidden_size (16, rank 0 has 8) and 1 more; start every rank with the same settings, files and versions"
    )


def test_what_only_one_of_two_has_differs_too() -> None:
    with pytest.raises(ValueError, match=r"in variable x \((None, rank 0 has \[2\])\);"):
        preflight.check_same(OneOf(0, [FACTS]), {**FACTS, "variable x": [2]})
