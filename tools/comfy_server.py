"""A ComfyUI server in a process of its own, and a small client for its API.

    with ComfyServer(python, comfyui, base, pack=repository) as server:
        result = server.run(api_workflow)

The server listens on 127.0.0.1 only, and it is gone when the `with` block ends, by an exception too. A signal of
which Python makes no exception, such as SIGTERM without a handler, leaves it running.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfy_events import Listener, Message, Result, ServerError, result_of

LAUNCHER = Path(__file__).resolve().parent / "run_comfyui.py"
PACK_FOLDER = "infinitetalk"
FOLDERS = ("models", "custom_nodes", "input", "output", "temp", "user")
# What a copy of the pack leaves out, where links are not allowed.
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".demo", ".*_cache", "__pycache__", ".hypothesis")
Workflow = dict[str, Any]


class PromptRefusedError(ServerError):
    """The server found the workflow invalid; `answer` is its JSON (`error`, `node_errors`)."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"the workflow was refused: {json.dumps(answer, indent=1)[:4000]}")
        self.answer = answer


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
        """`pack` is linked into custom_nodes; `extra` are further arguments of ComfyUI's main.py."""
        self.python, self.comfyui, self.base, self.pack = python, comfyui.resolve(), base.resolve(), pack
        self.cpu, self.extra, self.start_timeout = cpu, extra, start_timeout
        self.client_id = uuid.uuid4().hex
        self.log_path = self.base / "comfyui.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: Listener | None = None

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the process

    @property
    def url(self) -> str:
        """Where the server is, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start and wait until requests are answered; raises ServerError with the log's end."""
        for folder in FOLDERS:
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        if self.pack:
            link_pack(self.pack, self.base / "custom_nodes" / PACK_FOLDER)
        self.port = self.port or free_port()  # the same after a restart, as of a real server
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
            self._wait_until_up()
            self._listener = Listener(f"{self.url}/ws?clientId={self.client_id}")
            self._listener.start_and_wait(timeout=30)
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
            # Two servers of one checkout would fight for its database file.
            command += ["--database-url", "sqlite:///:memory:"]
        return [*command, *self.extra]

    def _wait_until_up(self) -> None:
        end = time.monotonic() + self.start_timeout
        while time.monotonic() < end:
            self._check_alive()
            try:
                self._request("/system_stats", timeout=5)
                return
            except (OSError, ServerError):
                time.sleep(0.1)
        raise ServerError(f"ComfyUI did not answer within {self.start_timeout:.0f} s:\n{self.log_tail()}")

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def _check_alive(self) -> None:
        if not self.alive():
            code = self._process.returncode if self._process else "none"
            raise ServerError(f"ComfyUI is not running (exit code {code}):\n{self.log_tail()}")

    def stop(self, timeout: float = 10.0) -> None:
        """End the server; after `timeout` seconds it is killed. Safe to call twice."""
        if self._listener:
            self._listener.stop()
            self._listener = None
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
        """Everything the server printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    # -- the API

    def run(
        self,
        workflow: Workflow,
        timeout: float = 600.0,
        on_message: Callable[[Message], None] | None = None,
    ) -> Result:
        """Queue a workflow in API format and wait for its end."""
        return self.follow(self.queue(workflow), timeout, on_message)

    def queue(self, workflow: Workflow) -> str:
        """Queue a workflow in API format; its prompt id. Raises PromptRefusedError."""
        answer = self._post_json("/prompt", {"prompt": workflow, "client_id": self.client_id})
        return str(answer["prompt_id"])

    def follow(
        self,
        prompt_id: str,
        timeout: float = 600.0,
        on_message: Callable[[Message], None] | None = None,
    ) -> Result:
        """Wait for a queued prompt's end; `on_message` sees all of its messages, earlier ones too.

        Raises ServerError when the server goes away; after `timeout` s interrupts and raises TimeoutError.
        """
        assert self._listener is not None, "the server is not started"
        end, seen = time.monotonic() + timeout, 0
        while True:
            messages = self._listener.wait_for(prompt_id, seen, timeout=0.5)
            for message in messages[seen:]:
                if on_message:
                    on_message(message)
            seen = len(messages)
            if any(m.type == "executing" and m.data.get("node") is None for m in messages):
                return result_of(prompt_id, messages)
            self._check_alive()
            if time.monotonic() > end:
                self.interrupt()
                raise TimeoutError(f"the prompt took more than {timeout:.0f} s:\n{self.log_tail()}")

    def previews(self) -> list[bytes]:
        """The binary messages (preview pictures) so far, as they came."""
        return list(self._listener.binary) if self._listener else []

    def interrupt(self) -> None:
        """Stop the prompt that runs."""
        self._post("/interrupt", b"{}")

    def free(self) -> None:
        """Unload models and forget node outputs (between prompts)."""
        self._post("/free", json.dumps({"unload_models": True, "free_memory": True}).encode())

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The history entry of a prompt; empty while it has none."""
        entry: dict[str, Any] = self._get_json(f"/history/{prompt_id}").get(prompt_id, {})
        return entry

    def object_info(self) -> dict[str, Any]:
        """All nodes with their inputs and outputs."""
        return self._get_json("/object_info")

    def get(self, path: str) -> bytes:
        """The answer to GET `path`."""
        return self._request(path)

    def upload(self, file: Path, name: str | None = None) -> str:
        """Put a file into the server's input folder over HTTP; the name to use in workflows."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="image"; filename="{name or file.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return str(json.loads(self._post("/upload/image", body, kind))["name"])

    def path_of(self, file: dict[str, str]) -> Path:
        """Where a reported file ({"filename", "subfolder", "type"}) lies on disk."""
        return self.base / file.get("type", "output") / file.get("subfolder", "") / file["filename"]

    def _get_json(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._request(path))
        return answer

    def _post_json(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._post(path, json.dumps(content).encode()))
        return answer

    def _post(self, path: str, body: bytes, content_type: str = "application/json") -> bytes:
        return self._request(path, body, content_type)

    def _request(
        self,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout: float = 60.0,
    ) -> bytes:
        headers = {"Content-Type": content_type} if body is not None else {}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        # No proxy: the server is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            content = error.read().decode(errors="replace")
            if path == "/prompt" and error.code == 400:
                raise PromptRefusedError(json.loads(content)) from None
            raise ServerError(f"{path} answered {error.code}: {content[:2000]}") from None


def _signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the server and what it started: it is the leader of a process group of its own."""
    if os.name != "posix":
        process.terminate()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def link_pack(pack: Path, place: Path) -> None:
    """Put the pack into a custom_nodes folder: a link, or a copy where links are not allowed."""
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    try:
        place.symlink_to(pack.resolve(), target_is_directory=True)
    except OSError:
        shutil.copytree(pack, place, ignore=NOT_COPIED)


def cuda_available(python: Path) -> bool:
    """Whether the environment's PyTorch sees a CUDA device."""
    program = "import torch; print(torch.cuda.is_available())"
    answer = subprocess.run([str(python), "-c", program], capture_output=True, text=True, timeout=120)
    return answer.stdout.strip().endswith("True")
