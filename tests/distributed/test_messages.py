"""What ranks exchange comes out as it went in, and runs no code."""

from __future__ import annotations

import math
import pickle
from typing import Any, NamedTuple, Optional

import numpy as np
import pytest

from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.distributed.messages import decode_messages, encode_message
from bert_pretrain.distributed.rank_watch import Endpoint, RankProcess
from bert_pretrain.run_files.results import Evaluated
from bert_pretrain.train.device import DtypeOffer

EVALUATED = Evaluated(*range(len(Evaluated._fields)))


def exchange(*values: Any) -> list[Any]:
    """What every rank gets."""
    messages = [encode_message(value) for value in values]
    return decode_messages(np.concatenate(messages), np.array(list(map(len, messages)), np.int64))


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**70), 0.1, math.inf, 5e-324, "", "grün \udc80 \n\0", b"", bytes(range(256)), (), [], {},
        {"a b": (1, [2, (3.5,)], {"tuple": [1]}), "list": {"dict": {}}, "bytes": "00", "": None},
        [("x", 1)], RankProcess("node1 pid:[4026531836]", 7), Endpoint((("127.0.0.1", 80),), (), b"s" * 32),
        DtypeOffer(("float32",)), PreviousRun(results={"updates": 5}, notices=("a",), initial=EVALUATED),
    ],
)  # fmt: skip
def test_a_value_comes_out_as_it_went_in(value: Any) -> None:
    found = exchange("first", value, 3)
    assert found == ["first", value, 3] and repr(found[1]) == repr(value) and type(found[1]) is type(value)


def test_numbers_of_numpy_become_python_s() -> None:
    (found,) = exchange((np.int64(2**40), np.float32(0.5), np.bool_(True), math.nan))
    assert repr(found) == f"({2**40}, 0.5, True, nan)"


def test_a_class_that_is_not_registered_is_no_message() -> None:
    class Endpoint(NamedTuple):  # nor another one of a name that is
        secret: Optional[bytes]

    for value in (Endpoint(b""), {1: 2}, {3}, np.zeros(2), object()):
        with pytest.raises(AssertionError):
            encode_message(value)


def test_a_pickle_is_not_read() -> None:
    pickled = np.frombuffer(pickle.dumps(print), np.uint8)
    with pytest.raises(ValueError):
        decode_messages(pickled, np.array([len(pickled)]))
