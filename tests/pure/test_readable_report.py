"""What people read about a video: one line at the end or after an interrupt, and a table beside the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infinitetalk_core.runs.readable_report import (
    SUFFIX,
    done_in_words,
    existed_in_words,
    readable_report,
    stopped_in_words,
)
from infinitetalk_core.wording import counted
from tests.support.runs import RunFolder

FIELD_NAMES = ("color_drift", "seam", "outside_drift", "lip_sync", "seconds_taken", "reference_frames", "None", "null")


def chunk(number: int, **metrics: Any) -> dict[str, Any]:
    given = {"seam": None if number == 1 else 1.0 + number / 10, "color_drift": 0.1 * number, "sharpness": 0.97}
    first = 0 if number == 1 else 13 + 8 * (number - 2)
    frames = {"frames": 13 if number == 1 else 8, "seconds": first / 25, "reference_frames": [first]}
    return {"chunk": number, **given, **frames, "seconds_taken": 26.2, **metrics}


def report(chunks: int, **more: Any) -> dict[str, Any]:
    made = [chunk(number) for number in range(1, chunks + 1)]
    sizes = {"width": 640, "height": 480, "run": "infinitetalk_runs/00ff", "seed": 7}
    return {"complete": True, "chunks_planned": chunks, "chunks": made, **sizes, **more}


def test_the_end_says_length_time_chunks_and_quality():
    line = done_in_words(report(2), seconds=131.2, made=2)
    assert line == "Done: 0.84 s in 2 min 11 s, 2 chunks, largest join 1.2, color drift 0.2"
    assert done_in_words(report(3), 12, made=1).startswith("Done: 1.16 s in 12 s, 3 chunks (2 there from before), ")


def test_the_end_says_only_what_was_measured():
    single = report(1)
    assert done_in_words(single, 5, 1) == "Done: 0.52 s in 5 s, 1 chunk, color drift 0.1"
    single["chunks"][0]["color_drift"] = None
    assert done_in_words(single, 5, 1) == "Done: 0.52 s in 5 s, 1 chunk"
    assert done_in_words({}, 5, 0) == "Done: 0.00 s in 5 s, 0 chunks", "a report that somebody has emptied"


def test_a_first_chunk_says_that_it_is_one():
    first = report(1, first_chunk_only=True, chunks_planned=5)
    line = done_in_words(first, 26, 1)
    assert line.startswith("First chunk only: 0.52 s in 26 s, 1 of 5 chunks, ")
    assert line.endswith("first_chunk_only off and press Run to go on")
    assert "First chunk only, of 5 chunks" in readable_report(first, "v.mp4")


def test_a_stop_and_a_finished_job_say_what_to_do():
    assert stopped_in_words(1, 5, by_error=False) == "Stopped. 1 of 5 chunks kept; press Run to go on"
    assert stopped_in_words(1, 1, by_error=True) == "Stopped by an error. 1 of 1 chunk kept; press Run to go on"
    assert "No chunk was finished yet" in stopped_in_words(0, 5, by_error=False)
    assert existed_in_words(True) == "Already made; change the seed or switch start_over on"
    assert "switch first_chunk_only off" in existed_in_words(False)


@pytest.mark.parametrize(("number", "words"), [(0, "0 chunks"), (1, "1 chunk"), (2, "2 chunks")])
def test_one_is_no_plural(number, words):
    assert counted(number, "chunk") == words


def test_the_table_has_a_row_a_chunk_and_words_for_names():
    text = readable_report(report(3, continued_at_chunk=2), "v.mp4")
    assert text.startswith("v.mp4\n") and "Finished: 1.16 s of 640 x 480, 3 chunks." in text
    assert "Went on at chunk 2." in text
    assert not [name for name in FIELD_NAMES if name in text]
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if line.lstrip().startswith("Chunk "))
    first, second, third, rule, worst = lines[head + 2 : head + 7]
    assert first.split() == ["1", "0.00", "s", "-", "0.1", "0.97", "0.00", "s", "26", "s"]
    assert third.split()[:5] == ["3", "0.84", "s", "1.30", "0.3"]
    assert set(rule) == {"-", " "} and worst.split() == ["Worst", "1.30", "0.3", "0.97"]
    joins = {line.index(value) for line, value in ((second, "1.20"), (third, "1.30"), (worst, "1.30"))}
    assert len(joins) == 1, "the columns stand below each other"


def test_it_says_which_chunks_to_look_at():
    good = readable_report(report(3), "v.mp4")
    assert "No number is so large that it should be seen." in good and "Look at" not in good
    bad = report(3)
    bad["chunks"][1] |= {"seam": 2.4, "sharpness": 0.3}
    bad["chunks"][2] |= {"seam": 2.0}
    text = readable_report(bad, "v.mp4")
    assert "Look at chunks 2, 3: join." in text and "Look at chunk 2: sharpness." in text
    many = readable_report({**report(30), "chunks": [chunk(n, seam=3.0) for n in range(1, 31)]}, "v.mp4")
    assert ", 20 and 10 more: join." in many


def test_columns_that_no_chunk_has_are_left_out():
    lines = readable_report(report(2), "v.mp4")
    assert "Lip sync" not in lines and "Outside mask" not in lines
    measured = report(2)
    measured["chunks"][1] |= {"lip_sync": 0.41, "outside_drift": 0.0}
    measured["chunks"][0]["lips_absent"] = "no face was found"
    text = readable_report(measured, "v.mp4")
    assert "Lip sync" in text and "Outside mask" in text and "no face was found." in text


def beside(video: Path) -> Path:
    return video.with_suffix(SUFFIX)


def test_it_lies_beside_the_json_from_an_interrupt_to_the_end(tmp_path):
    workspace = RunFolder(tmp_path, readable=True)
    workspace.interrupt_at(3)
    assert "Not finished" in beside(tmp_path / "v.mp4").read_text()
    path = workspace.dub().path
    assert "Finished: 1.00 s, 3 chunks." in beside(path).read_text()
    assert len(json.loads(path.with_suffix(".json").read_text())["chunks"]) == 3


@pytest.mark.parametrize("kind", ["text", "link", "folder"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path, kind, caplog):
    path = beside(tmp_path / "v.mp4")
    mine = tmp_path / "mine.txt"
    mine.write_text("a caption\n")
    {"text": lambda: path.write_text("a caption\n"), "link": lambda: path.symlink_to(mine), "folder": path.mkdir}[
        kind
    ]()
    assert RunFolder(tmp_path, readable=True).dub().path.exists()
    assert mine.read_text() == "a caption\n" and (path.is_dir() or path.read_text() == "a caption\n")
    assert path.name in caplog.text
