"""Trio's scheduler shuffles ready tasks: that comes from a seed, or from Hypothesis.

At the end of a test run it is told what has been simulated.
"""

from __future__ import annotations

import pytest
import trio
from hypothesis import register_random

from tests.simulation.walk import TOTAL

register_random(trio._core._run._r)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TOTAL.runs:
        terminalreporter.section("simulation")
        terminalreporter.write_line(str(TOTAL))
