"""How much is tried: profiles, chosen with HYPOTHESIS_PROFILE.

ci        the default: the same examples each time, in minutes
nightly   others each time, in hours; what fails is kept in .hypothesis
replay    only what failed before
"""

from __future__ import annotations

import os

from hypothesis import Phase, settings

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=5_000, print_blob=True)
settings.register_profile(
    "replay", deadline=None, phases=(Phase.explicit, Phase.reuse), print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
