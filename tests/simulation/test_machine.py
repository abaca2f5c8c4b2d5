"""Hypothesis looks for steps after which a promise is broken: see `machine`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.simulation.budget import BUDGET
from tests.simulation.machine import Machine

#: Rules after which Hypothesis ends a run.
MAX_RULES = 40

TestMachine = pytest.mark.timeout(0)(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=BUDGET.machines,
    stateful_step_count=MAX_RULES,
    suppress_health_check=[HealthCheck.too_slow],
)
