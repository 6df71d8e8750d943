"""Watched runs: what a page is told, which run it is shown, and what the routes answer to anything."""

from __future__ import annotations

import json
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

METRICS = {"seam": 1.25, "color_drift": 0.5, "sharpness": 0.9, "seconds_taken": 3.0, "lip_lag": 1}


@pytest.fixture
def watching(pack: Any) -> Any:
    return import_module(f"{pack.__name__}.nodes.host.sampling.watching")


def fake_run(chunks: int) -> Any:
    """What a watched run reads of a run: its tasks and its store."""
    tasks = [
        SimpleNamespace(chunk=SimpleNamespace(index=i, first=i * 8, stop=i * 8 + 8, keep=8)) for i in range(chunks)
    ]
    store = SimpleNamespace(keep_all=False, on_commit=None)
    return SimpleNamespace(tasks=tasks, store=store, stored_frames=lambda task: None)


def hidden(workflow: Any = "w", node: Any = "31") -> Any:
    return SimpleNamespace(extra_pnginfo={"workflow": {"id": workflow}}, unique_id=node)


def test_a_chunk_is_told_when_it_is_stored(watching):
    events: list[dict[str, Any]] = []
    watch = watching.RunWatch(events.append)
    run = fake_run(3)
    with watch.watching(watching.Place.of(hidden(), "me")) as watched:
        assert events == [], "nothing is shown before the run is opened"
        watched.begin(run)
        run.store.on_commit(run.tasks[0], METRICS)
        found = watch.latest("w", "31", "me").to_json()
        assert (found["starts"], found["frames"], found["state"]) == ([0, 8, 16], 24, "running")
        assert found["chunks"] == [[0, 1.25, 0.5, 0.9, 3.0]]
        run.store.on_commit(run.tasks[1], METRICS)
        assert [chunk[0] for chunk in watched.to_json(1)["chunks"]] == [1] and "starts" not in watched.to_json(1)
    assert [(event["state"], event["entries"]) for event in events] == [
        ("running", 0),
        ("running", 1),
        ("running", 2),
        ("stopped", 2),
    ]
    assert events[2]["newest"][0] == 1 and events[2]["node"] == "31"
    assert watched.clip(0) is None and watched._run is None, "an ended run holds no models"


def test_an_unusable_input_shows_nothing(watching):
    events: list[dict[str, Any]] = []
    watch = watching.RunWatch(events.append)
    with pytest.raises(ValueError), watch.watching(watching.Place.of(hidden(), "me")):
        raise ValueError
    assert events == [] and watch.latest("w", "31", "me") is None


@pytest.mark.parametrize(
    "found",
    [SimpleNamespace(), hidden(None), hidden(7), hidden(node=None), SimpleNamespace(extra_pnginfo=None, unique_id="1")],
)
def test_a_prompt_without_a_workflow_is_not_shown(watching, found):
    events: list[dict[str, Any]] = []
    watch = watching.RunWatch(events.append)
    with watch.watching(watching.Place.of(found, None)) as watched:
        watched.begin(fake_run(2))
    assert events == [] and watch.find(watched.id) is None


@pytest.mark.parametrize("kept", [None, "a/b/new_interrupted.mp4"])
def test_an_interrupt_names_the_video_that_this_execution_kept(watching, kept):
    watch = watching.RunWatch()
    with pytest.raises(KeyboardInterrupt), watch.watching(watching.Place.of(hidden(), "me")) as watched:
        watched.begin(fake_run(2))
        watched.stop(kept)
        raise KeyboardInterrupt
    named = {"filename": "new_interrupted.mp4", "subfolder": "a/b", "type": "output"}
    assert watched.state == "stopped" and watched.video == (named if kept else None)


def test_a_finished_run_has_the_numbers_of_chunks_made_before(watching, monkeypatch, tmp_path):
    monkeypatch.setattr(watching, "output_folder", lambda: tmp_path)
    run = fake_run(3)
    with watching.RunWatch().watching(watching.Place.of(hidden(), "me")) as watched:
        watched.begin(run)
        run.store.on_commit(run.tasks[2], METRICS)
        watched.finish(tmp_path / "video" / "v.mp4", json.dumps({"chunks": [METRICS] * 3}))
    found = watched.to_json()
    assert sorted(chunk[0] for chunk in found["chunks"]) == [0, 1, 2]
    assert found["video"] == {"filename": "v.mp4", "subfolder": "video", "type": "output"}


def test_a_page_gets_its_own_run_before_that_of_another_page(watching):
    watch = watching.RunWatch()
    for client in ("me", "other"):
        with watch.watching(watching.Place.of(hidden(), client)) as watched:
            watched.begin(fake_run(1))
    assert watch.latest("w", "31", "me").place.client == "me"
    assert watch.latest("w", "31", "new tab").place.client == "other", "the latest"
    assert watch.latest("w", "5:31", "me") is None and watch.latest("x", "31", "me") is None


def test_old_runs_are_forgotten(watching):
    watch = watching.RunWatch()
    found = []
    for _ in range(watching.MOST_RUNS + 5):
        with watch.watching(watching.Place.of(hidden(), "me")) as watched:
            watched.begin(fake_run(1))
        found.append(watched.id)
    assert [watch.find(run) is not None for run in found] == [False] * 5 + [True] * watching.MOST_RUNS


def test_thousands_of_joined_chunks_do_not_flood_the_pages(watching):
    events: list[dict[str, Any]] = []
    run = fake_run(5000)
    with watching.RunWatch(events.append).watching(watching.Place.of(hidden(), "me")) as watched:
        watched.begin(run)
        for task in run.tasks:
            watched.chunk_stored(task.chunk, METRICS)
    assert len(events) < 50 and events[-1]["entries"] == 5000


@pytest.mark.parametrize("kind", ["OSError", "FFmpegError"])
def test_a_piece_whose_files_have_just_gone_is_none(watching, kind, tmp_path):
    def gone(task):
        raise OSError("gone") if kind == "OSError" else watching.FFmpegError(1, "gone")

    run = fake_run(1)
    run.stored_frames, run.store.sound = gone, lambda: tmp_path / "sound.mp4"
    with watching.RunWatch().watching(watching.Place.of(hidden(), "me")) as watched:
        watched.begin(run)
        assert watched.clip(0) is None, "not made yet"
        run.store.on_commit(run.tasks[0], METRICS)
        assert watched.clip(0) is None


@pytest.mark.parametrize(
    "query", ["", "?workflow=a&node=31&client=b", "?run=nothing&since=1", "?workflow=%00&node=../..&since=-1&since=x"]
)
def test_the_state_of_an_unknown_run_is_empty(server, query):
    assert json.loads(server.get(f"/infinitetalk/run{query}")) == {}


@pytest.mark.parametrize("query", ["", "?run=x", "?run=x&chunk=0", "?chunk=-1", "?run=x&chunk=1e9", "?chunk=²"])
def test_a_piece_of_an_unknown_run_is_not_found(server, query):
    with pytest.raises(Exception, match="404"):
        server.get(f"/infinitetalk/clip{query}")
