"""Progress in words."""

from __future__ import annotations


def describe_progress(chunk: int, chunks: int, step: int, steps: int, seconds_left: float) -> str:
    """For example `chunk 3/12, step 7/40, 4 min 10 s left`; chunk and step count from 1."""
    return f"chunk {chunk}/{chunks}, step {step}/{steps}, {describe_seconds(seconds_left)} left"


def describe_seconds(seconds: float) -> str:
    """Whole seconds below a minute, then minutes and seconds, then hours and minutes."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
