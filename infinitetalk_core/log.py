"""The pack's logger: `log` adds the pack's name to each message, since ComfyUI's console shows no logger names."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

LOGGER = logging.getLogger("infinitetalk")
PREFIX = "InfiniteTalk: "


class PackLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger that puts `PREFIX` before each message."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the message with the prefix."""
        return f"{PREFIX}{msg}", kwargs


log = PackLogger(LOGGER, {})
