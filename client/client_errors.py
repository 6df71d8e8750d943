"""What can go wrong between this program, a list of jobs and a server, sorted by whose fault it is.

JobError: the list of jobs. RefusedError: the job, as the server says. ServerFaultError: this job on this server, but
perhaps not the next time. BusyError and other ServerLostError: the server, and it passes. SetupError: how the server is
reached; waiting does not mend it.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import aiohttp

SHOWN = 500  # characters of what a server says
LOGIN = (401, 403, 407, 511)
BUSY = (408, 425, 429, 503)
GATEWAY = (502, 504, *range(520, 531))  # of a proxy, whose server is away


class JobError(Exception):
    """A job, or the list of jobs, is wrong; the message says in a sentence what to change."""


class ServerLostError(Exception):
    """The server does not answer: it is down or still starting, or the network fails."""


class BusyError(ServerLostError):
    """The server asks to come again later. wait: after how many seconds; 0 if it does not say."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class SetupError(ServerLostError):
    """The address leads to a login, to another address, or to a certificate that is not trusted."""


class ServerFaultError(ServerLostError):
    """The server answers, but fails at this very call."""


class RefusedError(Exception):
    """The server refused the call; the message says why, and trying again does not help.

    answer: its JSON, for a workflow with `error` and `node_errors`; empty if the answer is something else.
    """

    def __init__(self, message: str, answer: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.answer = answer or {}


def one_line(text: str, limit: int = SHOWN) -> str:
    """Return a foreign text as one line that a terminal can show: no control characters, at most `limit` long."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else f"{line[:limit]}…"


def what_it_said(text: str) -> str:
    """Return the text of an answer in one line; of a web page its title."""
    if not re.match(r"\s*<(!doctype|html)", text, re.IGNORECASE):
        return one_line(text)
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return one_line(title[1]) if title and title[1].strip() else "a web page"


def disk_words(error: OSError) -> str:
    """Return what the operating system says of a file, without Python's words."""
    reason = error.strerror or one_line(str(error))
    return f"{Path(str(error.filename)).name}: {reason}" if error.filename else reason


def without_password(url: str) -> str:
    """Return an address without the name and the password in it, for logs and files."""
    return re.sub(r"//[^/]*@", "//", url)


def connection_error(url: str, error: BaseException) -> ServerLostError:
    """Return the error for a connection that failed, in words."""
    if isinstance(error, aiohttp.ClientSSLError):
        return SetupError(f"{url}: its certificate is not trusted ({one_line(str(error), 200)})")
    if isinstance(error, aiohttp.InvalidURL):
        return SetupError(f"{url} is no address of a server")
    if isinstance(error, asyncio.TimeoutError):
        return ServerLostError(f"{url} does not answer in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0  # below 0: of a name that is not found, whose text is good
        reason = os.strerror(number) if number > 0 else error.os_error.strerror
        return ServerLostError(f"{url} cannot be reached ({reason or one_line(str(error), 200)})")
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, ConnectionError)):
        return ServerLostError(f"{url} broke the connection off")
    return ServerLostError(f"{url} does not answer like a web server ({one_line(str(error), 200)})")


def redirect_error(url: str, path: str, to: str) -> SetupError:
    """Return the error for an answer that sends us elsewhere, as login pages and https do."""
    base = one_line(to, 200).partition("?")[0].removesuffix(path)
    return SetupError(
        f"{url} sends us on to {base or 'nowhere'}: give the address behind it as --server, or one without a login"
    )


def no_comfyui(url: str, path: str) -> ServerLostError:
    """Return the error for an answer of a form that ComfyUI's answers do not have."""
    return ServerLostError(f"{url}{path} does not answer like ComfyUI")


def status_error(path: str, status: int, text: str, retry_after: str = "") -> ServerLostError | None:
    """Return the error that a status from 400 on stands for; None if it is the job that is refused."""
    said = f"{path} answered {status}: {what_it_said(text)}".removesuffix(": ")
    if status in LOGIN:
        return SetupError(
            f"{said}: a login stands in front of this server; give an address without one, or with the name and "
            "password of a basic login (http://name:password@host)"
        )
    if status in BUSY:
        return BusyError(said, float(retry_after) if re.fullmatch(r"\d{1,5}", retry_after) else 0.0)
    if status in GATEWAY:
        return ServerLostError(said)
    return ServerFaultError(said) if status >= 500 else None
