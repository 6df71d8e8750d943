"""Words for numbers in messages to the user."""

from __future__ import annotations


def counted(number: int, name: str) -> str:
    """Return `number` with the name of what is counted, in the plural unless it is one: `1 chunk`, `2 chunks`."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
