"""Signals that end a run."""

import signal
import threading


class Stop:
    """Remembers the first SIGINT, SIGTERM or SIGHUP (a closed terminal); a second one interrupts at once.

    One of ``many`` processes waits for the others all the same: it gets Ctrl-C from the terminal and then SIGTERM from
    torchrun. A signal that the process was started to ignore (nohup) stays ignored.
    """

    def __init__(self, many: bool = False):
        self.many = many
        self.signal = 0

    def __enter__(self):
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
            heeded = [each for each in signals if signal.getsignal(each) != signal.SIG_IGN]
            self.before = {each: signal.signal(each, self.handle) for each in heeded}
        return self

    def handle(self, number, frame):
        if self.signal and not self.many:
            raise_for(number)
        self.signal = self.signal or number

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def raise_for(number: int) -> None:
    """End as the signal would have; 0 is none."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number:
        raise SystemExit(128 + number)
