"""The progress bar of a terminal. Elsewhere it shows nothing, and lines tell the progress."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Optional, TextIO

from tqdm import tqdm

_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_COLOUR = "green"
# Label, key of the values, format.
_SHOWN = (
    ("loss", "loss", "{:.4f}"),
    ("mlm_acc", "masked_lm_accuracy", "{:.4f}"),
    ("examples/s", "examples_per_second", "{:.1f}"),
)


class ProgressBar:
    """Updates done, the time left, loss, accuracy and speed. OSError of a closed terminal is ignored."""

    def __init__(self, num_updates: int, hidden: tuple[str, ...] = ()) -> None:
        """hidden: keys of values that are not shown."""
        self._num_updates, self._hidden = num_updates, hidden
        self._bar: Optional[tqdm] = None

    @property
    def is_shown(self) -> bool:
        """True where stderr is a terminal."""
        return sys.stderr.isatty()

    def move(self, update: int, values: Mapping[str, Optional[float]]) -> None:
        """Shows that `update` updates are done, and the values of the last one. NO_COLOR makes the bar colourless."""
        if not self.is_shown:
            return
        with contextlib.suppress(OSError):
            if self._bar is None:
                colour = None if os.environ.get("NO_COLOR") else _COLOUR
                self._bar = tqdm(
                    total=self._num_updates,
                    initial=update - 1,
                    bar_format=_FORMAT,
                    dynamic_ncols=True,
                    colour=colour,
                    file=sys.stderr,
                )
            self._bar.set_postfix_str(self._text(values), refresh=False)
            self._bar.update(update - self._bar.n)

    def print(self, text: str, stream: TextIO) -> None:
        """Prints a line above the bar."""
        with contextlib.suppress(OSError):  # a closed terminal or pipe, or a full disk
            if self._bar is not None:
                self._bar.write(text, file=stream)
            else:
                print(text, file=stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is; lines follow below it."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None

    def _text(self, values: Mapping[str, Optional[float]]) -> str:
        return ", ".join(
            f"{label} {text.format(values[key])}"
            for label, key, text in _SHOWN
            if values.get(key) is not None and key not in self._hidden
        )
