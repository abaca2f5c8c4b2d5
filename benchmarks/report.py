"""The report (to come)."""

from __future__ import annotations

from benchmarks.options import ReportOptions


def write_report(options: ReportOptions) -> list[str]:
    return ["report: not there yet"]
