"""Log of the executions of a run in its manifest: when, on which machine, from which chunk, result and warnings."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from ..errors import RunError
from .store import RunStore

MOST_WARNINGS = 100  # limit, because a damaged source may cause one per frame


class _WarningCollector(logging.Handler):
    """Log handler that collects the texts of warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Add the text of one record."""
        text = record.getMessage().removeprefix("InfiniteTalk: ")
        if text not in self.texts and len(self.texts) < MOST_WARNINGS:
            self.texts.append(text)


class RunLog:
    """Logs the current execution of a run. `entries` holds all executions, the current one last."""

    def __init__(self, store: RunStore, continued_at: int) -> None:
        """continued_at: index of the first chunk to make now."""
        self._store, self._started, self._warnings = store, time.monotonic(), _WarningCollector()
        self._entry = {
            "began": _now(),
            "machine": platform.node(),
            "from_chunk": continued_at + 1,
            "state": "unfinished",
        }
        self._earlier = list(store.manifest.get("executions", []))
        logging.getLogger("infinitetalk").addHandler(self._warnings)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The value of `executions` in the manifest."""
        return [*self._earlier, {**self._entry, "warnings": list(self._warnings.texts)}]

    def _close(self, state: str) -> None:
        logging.getLogger("infinitetalk").removeHandler(self._warnings)
        self._entry |= {"state": state, "ended": _now(), "seconds": round(time.monotonic() - self._started, 3)}

    def finish(self) -> None:
        """Close the entry as finished. The caller writes the manifest."""
        self._close("finished")

    @contextlib.contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Write an exception from the block to the manifest. A failure of that must not hide the exception."""
        try:
            yield
        except BaseException as error:
            self._close(f"stopped by {type(error).__name__}: {error}".strip().rstrip(":"))
            with contextlib.suppress(OSError, RunError):
                self._store.describe(executions=self.entries)
            raise


def _now() -> str:
    """Return the UTC time as text. For people only: clocks are changed, and differ between machines."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
