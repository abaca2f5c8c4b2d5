"""Trio's scheduler shuffles ready tasks; Hypothesis must hold that shuffle, or nothing replays."""

from __future__ import annotations

import hypothesis
import trio

hypothesis.register_random(trio._core._run._r)
