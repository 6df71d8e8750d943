"""Each chunk's record says which weights were on the GPU; chunks of one video made with others of them are told of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from infinitetalk_core.runs.weights_on_gpu import ALL, WeightsCheck, WeightsOnGpu
from tests.support.runs import InputSensitiveModels, RunFolder, SessionLog

WHOLE = (WeightsOnGpu("WAN21", 1000, 1000, ALL), WeightsOnGpu("AudioAdapter", 200, 200, ALL))
PARTLY = (WeightsOnGpu("WAN21", 1000, 400, "5f00"), WeightsOnGpu("AudioAdapter", 200, 200, ALL))
OTHERS = (WeightsOnGpu("WAN21", 1000, 400, "77aa"), WeightsOnGpu("AudioAdapter", 200, 200, ALL))


@dataclass
class NotingModels(InputSensitiveModels):
    """Models that say where the weights were, for all chunks or by chunk."""

    weights: tuple[WeightsOnGpu, ...] = WHOLE
    by_chunk: dict[int, tuple[WeightsOnGpu, ...]] = field(default_factory=dict)

    def weights_of(self, chunk):
        return self.by_chunk.get(chunk, self.weights)


def entry(weights):
    return {"weights": [model.to_json() for model in weights]}


def records(workspace):
    found = [json.loads(path.read_text())["record"] for path in sorted(workspace.folder.glob("0*.json"))]
    return [record["metrics"].get("weights") for record in found]


def test_record_report_and_manifest_say_it(tmp_path):
    workspace = RunFolder(tmp_path, models=NotingModels(weights=PARTLY))
    workspace.interrupt_at(3)
    want = {"model": "WAN21", "bytes": 1000, "on_gpu": 400, "layers": "5f00"}
    assert [found[0] for found in records(workspace)] == [want, want]
    workspace.dub()
    manifest = json.loads((workspace.folder / "run.json").read_text())
    report = json.loads((tmp_path / "v.json").read_text())
    assert [chunk["weights"][0] for chunk in report["chunks"]] == [want] * 3
    assert manifest["report"]["chunks"] == report["chunks"]


@pytest.mark.parametrize(("now", "told"), [(WHOLE, 0), (PARTLY, 1), (OTHERS, 1)])
def test_going_on_with_other_weights_on_the_gpu_is_said_once(tmp_path, now, told):
    workspace = RunFolder(tmp_path, models=NotingModels())
    workspace.interrupt_at(2)
    workspace.models = NotingModels(weights=now)
    notes = SessionLog()
    workspace.dub(notes=notes)
    assert len(notes.warned) == told and notes.made == [2, 3]
    if told:
        assert "with 100% of the weights on the GPU and those of now with 50%" in notes.warned[0]


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_chunk_made_again_with_other_weights_is_told_of(tmp_path, chunk):
    workspace = RunFolder(tmp_path, models=NotingModels(), keep=True)
    workspace.dub()
    workspace.models = NotingModels(weights=PARTLY)
    notes = SessionLog()
    workspace.dub(notes=notes, redo=f"{chunk}=77", after_redo=type(workspace.job.redo.after).KEEP)
    assert notes.made == [chunk] and len(notes.warned) == 1


def test_within_one_execution_nothing_is_said(tmp_path):
    workspace = RunFolder(tmp_path, models=NotingModels(by_chunk={1: PARTLY}))
    notes = SessionLog()
    workspace.dub(notes=notes)
    assert notes.warned == []


def test_a_share_that_a_stored_chunk_had_is_none_that_is_new(tmp_path):
    workspace = RunFolder(tmp_path, models=NotingModels(by_chunk={1: PARTLY}))
    workspace.interrupt_at(3)
    notes = SessionLog()
    workspace.models = NotingModels(weights=PARTLY)
    workspace.dub(notes=notes)
    assert notes.warned == []


@pytest.mark.parametrize(
    "noted",
    [
        {},
        {"weights": 3},
        {"weights": []},
        {"weights": [{"model": "x"}]},
        {"weights": [{"model": [], "bytes": "x", "on_gpu": {}, "layers": {}}]},
        {"weights": [{"model": "x", "bytes": 1, "on_gpu": 10**400, "layers": "y"}]},
    ],
)
def test_a_record_without_it_or_with_nonsense_is_left_alone(noted):
    told = []
    check = WeightsCheck(told.append)
    check.joined(noted)
    check.made(entry(PARTLY))
    assert told == []
