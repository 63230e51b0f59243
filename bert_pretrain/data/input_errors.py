"""Explains what session.run raises for bad records."""

from __future__ import annotations

import re
from typing import Optional

# Pattern of an error message -> what the user reads.
_EXPLANATIONS = (
    (r"^ValueError: (.+)$", r"\1"),  # of our own code, passed through numpy_function
    (
        r"Name: (.+), Key: (\w+), Index: \d+\.\s+Number of \w+ values != expected\.\s+"
        r"Values size: (\d+) but output shape: \[(\d+)\]",
        r"\1: \2 has \3 values, the first record of the data has \4; train on records of one length at a time",
    ),
    (
        r"Name: (.+), Feature: (\w+) .*is required but could not be found",
        r"\1: feature \2 is missing; docs/data_format.md lists what a pretraining record holds",
    ),
    (
        r"Name: (.+), Key: (\w+), .*Data type: (\w+) but expected type: (\w+)",
        r"\1: \2 holds \3 values, expected \4; docs/data_format.md lists what a pretraining record holds",
    ),
    (
        r"Name: (.+), Key: (\w+), .*Can't parse serialized Example",
        r"\1: \2 cannot be read although the record's CRC is right; make the shards again",
    ),
    (
        r"Could not parse example input|Unsupported datatype",
        r"a record is not a tf.train.Example although its CRC is right; make the shards again",
    ),
)


def explain(error: Exception) -> Optional[ValueError]:
    """One line for an exception of session.run that bad input caused; None for any other.

    The exception is a tf.errors.OpError, or a UnicodeDecodeError, which session.run raises where TensorFlow's message
    quotes a record's bytes.
    """
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="replace")
    else:
        message = getattr(error, "message", None) or ""
    for pattern, line in _EXPLANATIONS:
        match = re.search(pattern, message, re.MULTILINE)
        if match:
            return ValueError(match.expand(line))
    return None
