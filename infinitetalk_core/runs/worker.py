"""A thread beside the one that makes chunks: it finishes one chunk while the next is made."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import torch

from ..log import log

_Result = TypeVar("_Result")


class Worker:
    """Context manager with one thread, which runs what it is given in that order.

    A task runs with the context variables and the PyTorch modes of its caller, which a new thread does not have. Its
    `then` is called in the thread of the caller, which alone talks to the host. Leaving the block waits for all tasks:
    what is finished is kept, and nothing is written afterwards. The exception of a started task is raised by the next
    call; where the block raises one itself, that of the task is logged.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="infinitetalk-chunk")
        self._started: Future[Any] | None = None
        self._then: Callable[[Any], None] = _nothing

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)
        if self._started is None:
            return
        late = self._started.exception()
        if late is None:
            # A failure of this must not hide the first exception; an interrupt of ComfyUI 0.33 is no Exception.
            with contextlib.suppress(BaseException):
                self.check()
        elif late is not error:
            log.warning("a finished chunk could not be kept: %s", late or type(late).__name__)

    def submit(self, task: Callable[[], _Result]) -> Future[_Result]:
        """Run `task` after all that were given before, and return its future, which alone has its exception."""
        context = contextvars.copy_context()
        inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def run() -> _Result:
            with torch.inference_mode(inference), torch.set_grad_enabled(grad):
                return context.run(task)

        return self._pool.submit(run)

    def start(self, task: Callable[[], _Result], then: Callable[[_Result], None] | None = None) -> None:
        """Wait for the task started before, start this one, and only then call the `then` of the one before.

        So what `then` raises, such as the host's interrupt, does not lose the new task. then: called with its result.
        """
        self.join()
        before, tell = self._started, self._then
        self._started, self._then = self.submit(task), then or _nothing
        if before is not None:
            tell(before.result())

    def join(self) -> None:
        """Wait for the started task; raise its exception, also at every further call."""
        if self._started is not None:
            self._started.result()

    def check(self) -> None:
        """If the started task has ended, call its `then`, or raise its exception, also at every further call."""
        if self._started is not None and self._started.done():
            result, tell = self._started.result(), self._then
            self._started, self._then = None, _nothing
            tell(result)

    def wait(self) -> None:
        """Wait for the started task, then `check`."""
        self.join()
        self.check()


def _nothing(result: Any) -> None:
    """Take a result that nobody asks for."""
