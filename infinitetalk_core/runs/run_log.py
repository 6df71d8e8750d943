"""What a run's manifest says of each sitting: when, where, how far it came, and what it warned of."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from ..errors import InputError
from .store import RunStore

MOST_WARNINGS = 100  # a damaged source may warn at every frame


class _Collector(logging.Handler):
    """Keeps what is warned of, each sentence once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        text = record.getMessage().removeprefix("InfiniteTalk: ")
        if text not in self.texts and len(self.texts) < MOST_WARNINGS:
            self.texts.append(text)


class RunLog:
    """Notes the present sitting in the manifest. `entries` are all of the run, this one last."""

    def __init__(self, store: RunStore, continued_at: int) -> None:
        """continued_at: position of the first chunk that is to be made now."""
        self._store, self._began, self._warned = store, time.monotonic(), _Collector()
        self._entry = {
            "began": _now(),
            "machine": platform.node(),
            "from_chunk": continued_at + 1,
            "state": "unfinished",
        }
        self._earlier = list(store.manifest.get("sittings", []))
        logging.getLogger("infinitetalk").addHandler(self._warned)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """For the manifest."""
        return [*self._earlier, {**self._entry, "warnings": list(self._warned.texts)}]

    def _close(self, state: str) -> None:
        logging.getLogger("infinitetalk").removeHandler(self._warned)
        self._entry |= {"state": state, "ended": _now(), "seconds": round(time.monotonic() - self._began, 3)}

    def finish(self) -> None:
        """The video is there; the manifest is written by whoever says so in it."""
        self._close("finished")

    @contextlib.contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Note what ends the sitting early. A second failure must not hide the first one."""
        try:
            yield
        except BaseException as error:
            self._close(f"stopped by {type(error).__name__}: {error}".strip().rstrip(":"))
            with contextlib.suppress(OSError, InputError):
                self._store.describe(sittings=self.entries)
            raise


def _now() -> str:
    """The time of day, for people only: clocks are set, and differ between machines."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
