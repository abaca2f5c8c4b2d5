"""How cost grows in trikv alone (to come)."""

from __future__ import annotations

from benchmarks.options import GrowthOptions


def grow(options: GrowthOptions) -> list[str]:
    return ["growth: not there yet"]
