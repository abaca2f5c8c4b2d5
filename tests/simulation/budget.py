"""How many simulated runs there are in each profile (see `tests/conftest.py`)."""

from __future__ import annotations

import os
from typing import NamedTuple


class Budget(NamedTuple):
    machines: int
    """Runs that Hypothesis drives."""
    walks: int
    """Random walks, of as many seeds."""
    first_seed: int = 0


BUDGETS = {
    "ci": Budget(machines=500, walks=500),
    "nightly": Budget(machines=50_000, walks=50_000, first_seed=1_000_000),
    "replay": Budget(machines=1, walks=0),
}

BUDGET = BUDGETS[os.environ.get("HYPOTHESIS_PROFILE", "ci")]
