"""Lists of numbers as people write them into a text input: times, strengths, boxes, chunks to redo."""

from __future__ import annotations

import math
import re

from .errors import InputError

# Without Python's own `1_000`, `inf` and `nan`.
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_DECIMAL_COMMA = r"[+-]?\d+,\d+"
_LONGEST_SHOWN = 60  # characters of the user's text in an error message


def number_in(word: str) -> float | None:
    """Return the finite number that `word` is, in decimal notation; None for any other word."""
    if not re.fullmatch(_NUMBER, word):
        return None
    value = float(word)
    return value if math.isfinite(value) else None


def whole_number_in(word: str) -> int | None:
    """Return the whole number of up to 30 digits that `word` is; None for any other word."""
    return int(word) if re.fullmatch(r"[+-]?\d{1,30}", word) else None


def words_in(text: str) -> list[str]:
    """Split a list at commas, spaces and line breaks.

    Raises InputError where commas may be decimal ones: `1,5 2,5` would be four numbers. Where a point is written
    (`0.5, 1,2`), or nothing but commas stands between the numbers (`1,5,2`), they separate.
    """
    spaced = [word.strip(",") for word in text.split()]
    decimal = next((word for word in spaced if re.fullmatch(_DECIMAL_COMMA, word)), None)
    if decimal is not None and len(spaced) > 1 and "." not in text:
        raise InputError(
            f"{shortened(text)!r} may be read in two ways, since {decimal!r} is one number or two: write decimals with "
            f"a point, such as {decimal.replace(',', '.')}, or a space after each comma"
        )
    return text.replace(",", " ").split()


def shortened(text: str) -> str:
    """Return `text`, cut for an error message."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
