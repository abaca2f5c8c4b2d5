"""What is expected to go wrong; each message is one line for a person."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A measurement, or a whole run, that could not be done."""


class NodeDied(BenchmarkError):
    """A node ended by itself; the message has the end of its log."""


class WrongAnswer(BenchmarkError):
    """A system answered what it must not: its figures would mean nothing."""


class Stopped(BaseException):
    """SIGINT or SIGTERM. Not an `Exception`, so that nothing but cleanup meets it on its way."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number
