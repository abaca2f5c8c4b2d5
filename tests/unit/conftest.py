"""Property tests on a shared, busy machine: no deadline for one example, and runs that replay."""

from __future__ import annotations

import hypothesis
import trio

hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")

# Trio's scheduler shuffles ready tasks; Hypothesis must hold that shuffle, or nothing replays.
hypothesis.register_random(trio._core._run._r)
