"""Tries a request again after an error that may pass: with growing pauses, and a line that names URL and cause."""

from __future__ import annotations

import errno
import random
import sys
import threading
import time
from typing import Callable, Optional, TypeVar

T = TypeVar("T")

TRIES = 10  # of a read or a write: a minute and a half without an answer, beside what the tries take
TRIES_AT_START = 4  # of what is asked before training, where a wrong name or address should be told soon
TRIES_OF_WRONG_BYTES = 4  # then the file itself is damaged, not the transfer
FIRST_PAUSE_SECONDS = 0.25  # doubled after each try
_LONGEST_PAUSE_SECONDS = 30.0
_TOLD_FROM_TRY = 4
_SECONDS_BETWEEN_LINES = 30.0
_SHOWN = 200  # characters of a cause

# Names of exceptions, of libraries that are not imported here, that another try cannot cure -> remedy.
_LASTING = {
    "NoCredentialsError": "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure",
    "PartialCredentialsError": "credentials are incomplete; set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ProfileNotFound": "the profile in AWS_PROFILE does not exist",
    "ParamValidationError": "not a valid name of a bucket or an object",
    "DefaultCredentialsError": "no credentials; set GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth login",
}
_lock = threading.Lock()
_told_at = -_SECONDS_BETWEEN_LINES


class WrongBytesError(Exception):
    """A body that is not what was asked for; its text says why."""


def call(url: str, request: Callable[[], T], tries: int = TRIES) -> T:
    """request(), tried up to `tries` times.

    FileNotFoundError and PermissionError, at once, and OSError otherwise; strerror is the cause in one line.
    """
    number = 0
    while True:
        number += 1
        try:
            return request()
        except Exception as error:
            lasting = _lasting(error)
            if lasting is not None:
                raise lasting from None
            is_wrong = isinstance(error, WrongBytesError)
            if number >= (min(tries, TRIES_OF_WRONG_BYTES) if is_wrong else tries):
                raise OSError(errno.EIO, f"{number} tries failed, the last with: {cause(error)}", url) from None
            _tell(url, error, number, tries)
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (number - 1), _LONGEST_PAUSE_SECONDS)
        time.sleep(pause * random.uniform(0.75, 1.25))  # else all threads and ranks try at the same moment


def cause(error: Exception) -> str:
    """What an exception says, in one line; the exception that caused it says more than the library's own."""
    told = [error]
    while told[-1].__cause__ is not None and len(told) < 5:
        told.append(told[-1].__cause__)
    text = next((text for one in told if (text := " ".join((getattr(one, "strerror", None) or str(one)).split()))), "")
    return (text or type(error).__name__)[:_SHOWN]


def _lasting(error: Exception) -> Optional[OSError]:
    """The error for the user where another try cannot help, else None."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such file or directory in the storage")
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, f"access denied: {cause(error)}")
    remedy = _LASTING.get(type(error).__name__)
    return None if remedy is None else PermissionError(errno.EACCES, remedy)


def _tell(url: str, error: Exception, number: int, tries: int) -> None:
    """A line on stderr once that takes long; many threads have the same trouble, and one of them tells it."""
    global _told_at
    with _lock:
        is_due = number >= _TOLD_FROM_TRY and time.monotonic() > _told_at + _SECONDS_BETWEEN_LINES
        if is_due:
            _told_at = time.monotonic()
    if is_due:
        print(f"warning: {url}: try {number} of {tries} failed: {cause(error)}; trying again", file=sys.stderr)
