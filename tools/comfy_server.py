"""Start a ComfyUI server in a separate process, and call its API synchronously.

    with ComfyServer(python, comfyui, base, pack=repository) as server:
        result = server.run(api_workflow)

The server listens on 127.0.0.1 only, and is stopped when the `with` block ends, also by an exception. A signal that
Python does not turn into an exception, such as SIGTERM without a handler, leaves it running.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from client_thread import ClientThread  # puts client/ on the path
from comfy_client import ComfyClient, Message, PromptOutcome, RefusedError, ServerLostError

LAUNCHER = Path(__file__).resolve().parent / "run_comfyui.py"
PACK_FOLDER = "infinitetalk"
FOLDERS = ("models", "custom_nodes", "input", "output", "temp", "user")
# Excluded from the copy of the pack that is made if links are not allowed.
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".demo", ".*_cache", "__pycache__", ".hypothesis")
Workflow = dict[str, Any]
T = TypeVar("T")


class ServerError(RuntimeError):
    """The server did not start or ended unexpectedly; the message contains the end of its log."""


@dataclass(frozen=True)
class Result(PromptOutcome):
    """The outcome of a prompt, and all websocket messages about it, in order."""

    prompt_id: str = ""
    messages: tuple[Message, ...] = ()

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the data of all messages of one type ("progress", "executing", "executed" …)."""
        return [message.data for message in self.messages if message.type == kind]


class ComfyServer:
    """Starts ComfyUI on a free port with `base` as its base directory; a context manager."""

    def __init__(
        self,
        python: Path,
        comfyui: Path,
        base: Path,
        *,
        pack: Path | None = None,
        cpu: bool = True,
        extra: tuple[str, ...] = (),
        start_timeout: float = 180.0,
    ) -> None:
        """Prepare a server. `pack` is linked into custom_nodes; `extra` are further arguments of ComfyUI's main.py."""
        self.python, self.comfyui, self.base, self.pack = python, comfyui.resolve(), base.resolve(), pack
        self.cpu, self.extra, self.start_timeout = cpu, extra, start_timeout
        self.log_path = self.base / "comfyui.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: ClientThread | None = None

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- process

    @property
    def url(self) -> str:
        """Return the server's address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Return the process id; None if it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until it answers requests. Raises ServerError with the end of the log."""
        for folder in FOLDERS:
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        if self.pack:
            link_pack(self.pack, self.base / "custom_nodes" / PACK_FOLDER)
        self.port = self.port or free_port()  # the same port after a restart, as for a real server
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
                start_new_session=os.name == "posix",
            )
        try:
            self._thread = ClientThread(ComfyClient(self.url))
            self._thread.start_and_wait()
            self._wait_until_up()
            self._call(self._thread.listen(), timeout=30)
        except BaseException:
            self.stop()
            raise

    def _command(self) -> list[str]:
        command = [str(self.python), str(LAUNCHER), str(self.comfyui)]
        command += ["--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch"]
        command += ["--base-directory", str(self.base)]
        if self.cpu:
            command.append("--cpu")
        if "--database-url" in (self.comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8"):
            # Otherwise two servers of one checkout would share a locked database file.
            command += ["--database-url", "sqlite:///:memory:"]
        return [*command, *self.extra]

    def _wait_until_up(self) -> None:
        end = time.monotonic() + self.start_timeout
        while time.monotonic() < end:
            self._check_alive()
            try:
                self._call(self._client.system_stats(), timeout=5)
                return
            except (ServerError, RefusedError):
                time.sleep(0.1)
        raise ServerError(f"ComfyUI did not answer within {self.start_timeout:.0f} s:\n{self.log_tail()}")

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def _check_alive(self) -> None:
        if not self.alive():
            code = self._process.returncode if self._process else "none"
            raise ServerError(f"ComfyUI is not running (exit code {code}):\n{self.log_tail()}")

    def stop(self, timeout: float = 10.0) -> None:
        """End the server; kill it after `timeout` seconds. Safe to call twice."""
        if self._thread:
            self._thread.stop()
            self._thread = None
        process, self._process = self._process, None
        if process is None:
            return
        try:
            _signal_all(process, signal.SIGTERM)
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            _signal_all(process, getattr(signal, "SIGKILL", signal.SIGTERM))
            process.wait(timeout)

    def log(self) -> str:
        """Return the server's output so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    # -- API

    @property
    def _client(self) -> ComfyClient:
        return self._running_thread().client

    def _running_thread(self) -> ClientThread:
        if self._thread is None:
            raise ServerError("ComfyUI is not started")
        return self._thread

    def _call(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """Run a coroutine of the client. Raises ServerError if the server is unreachable, and RefusedError."""
        try:
            return self._running_thread().call(work, timeout)
        except ServerLostError as error:
            raise ServerError(f"{error}:\n{self.log_tail()}") from None
        except concurrent.futures.TimeoutError:
            raise ServerError(f"{self.url} did not answer within {timeout:.0f} s:\n{self.log_tail()}") from None

    def run(
        self,
        workflow: Workflow,
        timeout: float = 600.0,
        on_message: Callable[[Message], None] | None = None,
    ) -> Result:
        """Queue a workflow in API format and wait for its end."""
        return self.follow(self.queue(workflow), timeout, on_message)

    def queue(self, workflow: Workflow) -> str:
        """Queue a workflow in API format and return its prompt id. Raises RefusedError if it is invalid."""
        return self._call(self._client.queue(workflow))

    def follow(
        self,
        prompt_id: str,
        timeout: float = 600.0,
        on_message: Callable[[Message], None] | None = None,
    ) -> Result:
        """Wait for a queued prompt's end; `on_message` gets all messages about it, earlier ones too.

        Raises ServerError when the server ends; after `timeout` s interrupts the prompt and raises TimeoutError.
        """
        thread = self._running_thread()
        end, seen = time.monotonic() + timeout, 0
        while True:
            messages = thread.wait_for(prompt_id, seen, timeout=0.5)
            for message in messages[seen:]:
                if on_message:
                    on_message(message)
            seen = len(messages)
            if any(m.type == "executing" and m.data.get("node") is None for m in messages):
                outcome = self._call(self._client.outcome(prompt_id))
                return Result(**vars(outcome), prompt_id=prompt_id, messages=tuple(messages))
            self._check_alive()
            if thread.lost:
                raise ServerError(f"the websocket is lost ({thread.lost}):\n{self.log_tail()}")
            if time.monotonic() > end:
                self.interrupt()
                raise TimeoutError(f"the prompt took more than {timeout:.0f} s:\n{self.log_tail()}")

    def previews(self) -> list[bytes]:
        """Return the binary messages (preview pictures, progress lines) so far, in order."""
        return list(self._thread.binary) if self._thread else []

    def interrupt(self) -> None:
        """Stop the current prompt."""
        self._call(self._client.interrupt())

    def free(self) -> None:
        """Unload models and drop cached node outputs (between prompts)."""
        self._call(self._client.free())

    def history(self, prompt_id: str) -> dict[str, Any]:
        """Return the history entry of a prompt; empty until it has ended."""
        return self._call(self._client.history(prompt_id))

    def object_info(self) -> dict[str, Any]:
        """Return all node classes with their inputs and outputs."""
        return self._call(self._client.object_info())

    def get(self, path: str) -> bytes:
        """Return the body of GET `path`."""
        return self._call(self._client.get(path))

    def upload(self, file: Path, name: str | None = None) -> str:
        """Upload a file into the server's input folder over HTTP; return its name in workflows."""
        return self._call(self._client.upload(file, name or file.name))

    def path_of(self, file: dict[str, str]) -> Path:
        """Return the path of a reported file ({"filename", "subfolder", "type"}) on disk."""
        return self.base / file.get("type", "output") / file.get("subfolder", "") / file["filename"]


def _signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the server's process group: the server and its child processes."""
    if os.name != "posix":
        process.terminate()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def free_port() -> int:
    """Return an unused port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def link_pack(pack: Path, path: Path) -> None:
    """Put the pack into a custom_nodes folder: as a link, or as a copy if links are not allowed."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    try:
        path.symlink_to(pack.resolve(), target_is_directory=True)
    except OSError:
        shutil.copytree(pack, path, ignore=NOT_COPIED)


def cuda_available(python: Path) -> bool:
    """Return whether the environment's PyTorch sees a CUDA device."""
    program = "import torch; print(torch.cuda.is_available())"
    answer = subprocess.run([str(python), "-c", program], capture_output=True, text=True, timeout=120)
    return answer.stdout.strip().endswith("True")
