"""What counts as the pack's own sentence, for `tools/fuzz.py`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from infinitetalk_core.errors import InputError, RunError

T = TypeVar("T")
# Words of Python and its libraries that an artist must not be left with.
PYTHONS = re.compile(
    r"Traceback|NoneType|object has no attribute|unsupported operand|argument must be|not subscriptable|"
    r"takes \d+ positional|list index out|invalid literal|could not convert|Expecting value|KeyError|codec can't"
)


def outcome_of(attempt: Callable[[], str]) -> tuple[str, str]:
    """Return (outcome, sentence) of `attempt`, which returns "read" or "silent", or raises.

    An OSError counts as answered if the pack wrote it, which names a path and what to do.
    """
    try:
        return attempt(), ""
    except (InputError, RunError) as error:
        return ("python" if PYTHONS.search(str(error)) else "answered"), str(error)
    except OSError as error:
        ours = "run again" in str(error)
        return ("answered" if ours else "python"), f"{type(error).__name__}: {error}"
    except Exception as error:  # everything else is what the command looks for
        return "python", f"{type(error).__name__}: {error}"
