"""JSON that people write: read whole or refused in a sentence, nothing of it lost in silence."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from client_errors import JobError

DEEPEST = 64  # lists and objects in each other
LARGEST = 64 << 20  # bytes; a list of jobs or a workflow has far less


def read_text(path: Path) -> str:
    """Return a text file in UTF-8. Raises JobError, naming it."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise JobError(f"{path} is too large to be a text: {size >> 20} MB")
        return path.read_bytes().decode("utf-8-sig")  # Windows' editors put a mark in front
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise JobError(f"{path} is no text in UTF-8: save it anew in that encoding") from error


def parse(text: str, what: str) -> Any:
    """Return the value of a JSON text. Raises JobError, whose sentence begins with `what`."""

    def pairs(found: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for key, value in found:
            if key in keys:
                raise JobError(f"{what} has {key[:60]!r} twice: take one out")
            keys[key] = value
        return keys

    def no_number(name: str) -> Any:
        raise JobError(f"{what} has {name}, which is no number: write one in digits")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=no_number)
        _check_values(value, what)
    except json.JSONDecodeError as error:
        raise JobError(f"{what} is no JSON: {error.msg}, at character {error.pos + 1}") from error
    except ValueError as error:
        raise JobError(f"{what} has a number of more digits than any setting takes") from error
    except RecursionError as error:
        raise JobError(f"{what} has lists or objects nested too deeply: {DEEPEST} levels are the most") from error
    return value


def _check_values(value: Any, what: str) -> None:
    """Raise JobError for numbers that are infinite, halves of characters, and deep nesting."""
    left = [(value, 1)]
    while left:
        found, depth = left.pop()
        if depth > DEEPEST:
            raise JobError(f"{what} has lists or objects nested too deeply: {DEEPEST} levels are the most")
        if isinstance(found, float) and not math.isfinite(found):
            raise JobError(f"{what} has a number that is larger than any setting takes")
        if isinstance(found, str) and re.search(r"[\ud800-\udfff]", found):
            raise JobError(f"{what} has half a character in {found[:40]!r}: write it anew")
        if isinstance(found, dict):
            left += [(item, depth + 1) for pair in found.items() for item in pair]
        elif isinstance(found, list):
            left += [(item, depth + 1) for item in found]
