"""The thread beside: the order of what it is given, its errors, and that it never outlives its block."""

from __future__ import annotations

import contextvars
import logging
import threading
import time

import pytest
import torch

from infinitetalk_core.runs.worker import Worker

HOST = contextvars.ContextVar("host", default="none")


def test_tasks_run_one_after_the_other_and_their_results_come_to_the_caller():
    events: list[object] = []

    def task(number: int) -> int:
        time.sleep(0.02 if number == 1 else 0)
        events.append(number)
        assert threading.current_thread() is not caller
        return number

    def then(number: int) -> None:
        assert threading.current_thread() is caller
        events.append(f"then {number}")

    caller = threading.current_thread()
    with Worker() as worker:
        for number in (1, 2, 3):
            worker.start(lambda n=number: task(n), then)
    assert [event for event in events if isinstance(event, int)] == [1, 2, 3]
    assert [event for event in events if isinstance(event, str)] == ["then 1", "then 2", "then 3"]
    assert all(events.index(n) < events.index(f"then {n}") for n in (1, 2, 3))


def test_a_task_has_the_context_variables_and_modes_of_its_caller():
    seen = []

    def look() -> None:
        seen.append((HOST.get(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    with Worker() as worker:
        HOST.set("prompt 7")
        with torch.inference_mode():
            worker.start(look)
        with torch.no_grad():
            worker.start(look)
        worker.start(look)
    assert seen == [("prompt 7", True, False), ("prompt 7", False, False), ("prompt 7", False, True)]


class Interrupt(BaseException):
    """As ComfyUI 0.33's, which is no Exception."""


@pytest.mark.parametrize("error", [Interrupt, RuntimeError])
def test_what_a_then_raises_does_not_lose_the_next_task(error):
    """The interrupt comes when a chunk is shown, and the next is made by then."""
    done = []

    def interrupted(result: None) -> None:
        raise error

    with pytest.raises(error), Worker() as worker:
        worker.start(lambda: None, interrupted)
        worker.start(lambda: done.append("kept"))
    assert done == ["kept"]


@pytest.mark.parametrize("error", [Interrupt, RuntimeError])
def test_what_a_then_raises_at_the_end_does_not_hide_the_error_of_the_block(error):
    def interrupted(result: None) -> None:
        raise error

    with pytest.raises(ValueError, match="out of memory"), Worker() as worker:
        worker.start(lambda: None, interrupted)
        raise ValueError("out of memory")


def fail() -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize("how", ["check", "start", "wait", "leave"])
def test_an_exception_of_a_task_ends_the_block_at_the_next_call(how):
    done = []
    with pytest.raises(OSError, match="the disk is full"), Worker() as worker:
        worker.start(fail, done.append)
        if how == "check":
            while True:
                worker.check()
        elif how == "start":
            worker.start(lambda: done.append("another"))
        elif how == "wait":
            worker.wait()
    assert done == []


def test_an_exception_of_a_task_is_raised_again_and_again():
    """A sampler may catch it and sample once more."""
    with pytest.raises(OSError), Worker() as worker:
        worker.start(fail)
        with pytest.raises(OSError):
            worker.wait()
        worker.check()


def test_the_exception_of_the_block_comes_first_and_that_of_the_task_is_logged(caplog):
    with caplog.at_level(logging.WARNING, "infinitetalk"), pytest.raises(KeyboardInterrupt), Worker() as worker:
        worker.start(fail)
        raise KeyboardInterrupt
    assert "a finished chunk could not be kept: the disk is full" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, GeneratorExit])
def test_leaving_the_block_in_any_way_waits_for_the_task(error):
    before, done = threading.active_count(), []

    def then(result: str) -> None:
        done.append(result)
        raise RuntimeError("not shown instead of the first exception")

    with pytest.raises(error), Worker() as worker:
        worker.start(lambda: time.sleep(0.2) or "stored", then)
        raise error
    assert done == ["stored"] and threading.active_count() == before
