"""Terminals that go away, were never there, or cannot show every character: none of that ends a command."""

import contextlib
import os
import sys


class Watched:
    """Standard error for what a person watches: once it is gone, nothing is shown and nothing fails."""

    def __init__(self):
        self.stream = sys.stderr

    def write(self, text: str) -> None:
        self._try("write", text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return bool(self._try("isatty"))

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "ascii"

    def _try(self, method: str, *args):
        if self.stream is None:
            return None
        try:
            return getattr(self.stream, method)(*args)
        except (OSError, ValueError):  # its reader has left, its terminal was closed
            self.stream = None


def open_streams() -> None:
    """Standard streams that a caller has closed (``2>&-``) lead nowhere, lest the next file that is opened gets their
    number and every warning lands in it; characters that a terminal has not become question marks."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def close_streams() -> None:
    """What cannot be shown any more leads nowhere, lest Python fails when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
