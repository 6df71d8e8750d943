"""Look before you wait: the Reference Picker runs alone and shows the chunks that the sampler behind it will make."""

from __future__ import annotations

import copy
import io
import struct
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

TEXT = 3  # the first four bytes of ComfyUI's binary websocket messages
PICKER, SAMPLER, GUIDANCE = "InfiniteTalkReferencePicker", "InfiniteTalkChunkSampler", "InfiniteTalkGuidance"
SPEECH_ENCODE, LOAD_AUDIO = "InfiniteTalkSpeechEncode", "LoadAudio"


def id_of(workflow: dict[str, Any], kind: str) -> str:
    return next(i for i, node in workflow.items() if node["class_type"] == kind)


def inputs_of(workflow: dict[str, Any], kind: str) -> dict[str, Any]:
    return workflow[id_of(workflow, kind)]["inputs"]


@pytest.fixture
def portrait(small: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """The portrait workflow, small, in chunks of 29 frames with 5 of context."""
    workflow = small("talking_portrait")
    inputs_of(workflow, PICKER).update(size="custom", width=64, height=48)
    inputs_of(workflow, GUIDANCE).update(preset="custom", steps=1, text_scale=1.0, audio_scale=1.0)
    inputs_of(workflow, SAMPLER).update(chunk_frames=29, context_frames=5)
    return workflow


@pytest.fixture
def asked(server: Any) -> Callable[[dict[str, Any]], tuple[str, Any, Any]]:
    """`asked(workflow)`: queue only the picker and what it needs; its text, its picture and the result."""

    def ask(workflow: dict[str, Any]) -> tuple[str, Any, Any]:
        before, node = len(server.previews()), id_of(workflow, PICKER)
        outcome = server.follow(queue_target(server, workflow, node), timeout=120)
        assert outcome.status == "success", outcome.error
        (file,) = outcome.outputs[node]["images"]
        picture = Image.open(io.BytesIO(server.path_of(file).read_bytes()))
        (text,) = outcome.outputs[node]["text"]
        said = [line for each, line in texts(server.previews()[before:]) if each == node]
        assert said[-1] == text, "the same on the node"
        return text, picture, outcome

    return ask


def queue_target(server: Any, workflow: dict[str, Any], node: str) -> str:
    """Queue a workflow as the frontend does for one node: whole, with the node as the target; its prompt id."""
    body = {"prompt": workflow, "client_id": server._client.client_id, "partial_execution_targets": [node]}
    return server._call(server._client._json("POST", "/prompt", json=body))["prompt_id"]


def texts(binary: list[bytes]) -> list[tuple[str, str]]:
    """Node and text of the messages that write on nodes."""
    found = []
    for message in binary:
        kind, length = struct.unpack(">II", message[:8])
        if kind == TEXT:
            found.append((message[8 : 8 + length].decode(), message[8 + length :].decode()))
    return found


def test_it_runs_alone_and_tells_the_chunks_of_the_sampler(portrait, asked):
    text, picture, outcome = asked(portrait)
    assert text == "5 chunks, 4.9 s, 64 x 48", "123 frames: 29 and four times 24"
    assert set(outcome.outputs) == {id_of(portrait, PICKER)}
    ran = {message["node"] for message in outcome.of_type("executing") if message["node"]}
    models = {
        i for i, node in portrait.items() if "Loader" in node["class_type"] or node["class_type"] == SPEECH_ENCODE
    }
    assert not ran & models, "no model is loaded for it"
    assert picture.width == 3 * 256, "5 cells in 3 columns"
    inputs_of(portrait, SAMPLER)["chunk_frames"] = 61
    assert asked(portrait)[0] == "3 chunks, 4.9 s, 64 x 48", "it is shown anew when the sampler's chunks change"


def test_a_prompt_whose_sampler_lacks_something_is_refused_and_not_run_for_the_picker_alone(portrait, server):
    inputs_of(portrait, SAMPLER).pop("vae")
    with pytest.raises(Exception, match="vae") as refused:
        server.run(portrait)
    assert type(refused.value).__name__ == "RefusedError"


def test_a_job_of_its_own_is_told_what_it_can(portrait, asked):
    del portrait[id_of(portrait, SAMPLER)]
    inputs_of(portrait, PICKER).pop("speech", None)
    assert asked(portrait)[0] == "64 x 48; connect the voice to see its chunks"
    inputs_of(portrait, PICKER)["voice"] = [id_of(portrait, LOAD_AUDIO), 0]
    assert asked(portrait)[0] == "2 chunks, 4.9 s, 64 x 48", "in chunks of 81 frames"


# -- without a server


@pytest.fixture
def told(pack: ModuleType) -> ModuleType:
    return import_module(f"{pack.__name__}.nodes.host.media.connected_sampler")


def lengths(told: ModuleType, workflow: dict[str, Any]) -> tuple[int, int]:
    completed = told.completed({"prompt": workflow})["prompt"]
    return told.planned_lengths(completed, id_of(completed, PICKER))


@pytest.mark.parametrize(
    ("preset", "sampler", "expected"),
    [
        ("custom", {}, (29, 5)),
        ("FlashTalk (4 steps)", {"chunk_frames": 81, "context_frames": 9}, (33, 5)),
        ("FlashTalk (4 steps)", {}, (29, 5)),
        ("custom", {"chunk_frames": ["number", 0]}, (45, 5)),
        ("custom", {"chunk_frames": ["nobody", 0]}, (81, 5)),
        ("custom", {"chunk_frames": 30}, (81, 9)),
        ("custom", {"chunk_frames": "x", "context_frames": None}, (81, 9)),
        ("custom", {"chunk_frames": 13, "context_frames": 13}, (81, 9)),
    ],
)
def test_the_lengths_are_the_samplers(told, portrait, preset, sampler, expected):
    inputs_of(portrait, GUIDANCE)["preset"] = preset
    inputs_of(portrait, SAMPLER).update(sampler)
    portrait["number"] = {"class_type": "PrimitiveInt", "inputs": {"value": 45}}
    assert lengths(told, portrait) == expected


def test_the_lengths_are_found_through_other_nodes(told, portrait):
    sampler = inputs_of(portrait, SAMPLER)
    portrait["switch"] = {"class_type": "AnySwitch", "inputs": {"any": sampler["reference"]}}
    sampler["reference"] = ["switch", 0]
    assert lengths(told, portrait) == (29, 5)


def test_the_voice_is_linked_from_before_the_encoder(told, portrait):
    completed = told.completed({"prompt": portrait})["prompt"]
    picker = inputs_of(completed, PICKER)
    assert picker["voice"] == inputs_of(portrait, SPEECH_ENCODE)["audio"] and "speech" not in picker


def test_two_voices_are_linked_encoded(told, small):
    workflow = small("two_speakers")
    completed = told.completed({"prompt": copy.deepcopy(workflow)})["prompt"]
    assert inputs_of(completed, PICKER)["speech"] == inputs_of(workflow, SAMPLER)["speech"]


def test_what_the_user_has_connected_stays(told, portrait):
    inputs_of(portrait, PICKER)["speech"] = ["mine", 0]
    picker = inputs_of(told.completed({"prompt": portrait})["prompt"], PICKER)
    assert picker["speech"] == ["mine", 0] and "voice" not in picker


def test_a_voice_that_depends_on_the_picks_is_not_linked(told, portrait):
    portrait["talk"] = {"class_type": "PictureToSpeech", "inputs": {"image": [id_of(portrait, PICKER), 1]}}
    inputs_of(portrait, SPEECH_ENCODE)["audio"] = ["talk", 0]
    picker = inputs_of(told.completed({"prompt": portrait})["prompt"], PICKER)
    assert "voice" not in picker and "speech" not in picker, "the graph would be a circle"


def test_what_is_added_can_be_taken_away_again(told, portrait, small):
    for workflow in (portrait, small("two_speakers"), small("video_dubbing")):
        sent = copy.deepcopy(workflow)
        completed = told.completed({"prompt": workflow})["prompt"]
        assert completed != sent and told.as_sent(completed) == sent


def test_a_picker_before_a_sampler_is_a_goal_only_if_it_was_asked_for(told, portrait):
    picker, sampler = id_of(portrait, PICKER), id_of(portrait, SAMPLER)
    goals = told.completed({"prompt": portrait})[told.TARGETS]
    assert picker not in goals and sampler in goals
    assert told.completed({"prompt": portrait, told.TARGETS: [picker]})[told.TARGETS] == [picker]
    del portrait[sampler]
    assert told.TARGETS not in told.completed({"prompt": portrait})


@pytest.mark.parametrize(
    "request_body",
    [
        None,
        [],
        {},
        {"prompt": None},
        {"prompt": {"1": None, "2": [], "3": {"class_type": PICKER}, "4": {"class_type": PICKER, "inputs": []}}},
        {"prompt": {"1": {"class_type": PICKER, "inputs": {"image": ["1", 0]}}}},
        {
            "prompt": {
                "1": {"class_type": PICKER, "inputs": {}},
                "2": {"class_type": SAMPLER, "inputs": {"reference": ["1", 0]}},
            }
        },
        {
            "prompt": {
                "1": {"class_type": PICKER, "inputs": {}},
                "2": {
                    "class_type": SAMPLER,
                    "inputs": {"reference": ["1", 0], "speech": ["9", 0], "guidance": ["8", 0]},
                },
            }
        },
    ],
)
def test_a_prompt_of_any_kind_is_left_to_comfyui(told, request_body):
    assert told.completed(request_body) is request_body


# -- the sheet


@pytest.fixture
def picks(pack: ModuleType) -> Callable[..., Any]:
    """`picks(frames, policy, source=..., times=...)`: of a source of 100 frames of 40 x 60 pixels."""
    name = pack.__name__
    sheet = import_module(f"{name}.nodes.host.media.contact_sheet")
    job = import_module(f"{name}.infinitetalk_core.chunks.job")
    reference = import_module(f"{name}.infinitetalk_core.chunks.reference")
    video = import_module(f"{name}.infinitetalk_core.video.source")

    def make(frames: int | None, policy: str = "chunk start", source: int = 100, times: tuple = (), **lengths: int):
        pictures = video.PictureBatch(torch.full((source, 40, 60, 3), 0.5))
        settings = reference.ReferenceSettings(reference.Policy(policy), times_seconds=times)
        return sheet.Picks(job.Reference(pictures, 32, 48, settings), frames, **lengths)

    return make


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (123, {"chunk_frames": 29, "context_frames": 5}, "5 chunks, 4.9 s, 48 x 32"),
        (20, {}, "1 chunk, 0.8 s, 48 x 32"),
        (1750, {}, "25 chunks, 1:10.0, 48 x 32"),
        (None, {"source": 1, "policy": "still"}, "48 x 32; connect the voice to see its chunks"),
        (None, {}, "2 chunks, 4.0 s, 48 x 32; as long as the source, connect the voice to see its chunks"),
        (123, {"policy": "by hand", "times": (1.0,)}, "2 chunks, 4.9 s, 48 x 32; by hand has only 1 time for them"),
        (123, {"policy": "by hand", "times": (1.0, 2.0)}, "2 chunks, 4.9 s, 48 x 32"),
    ],
)
def test_the_words_of_the_picks(picks, frames, options, words):
    assert picks(frames, **options).in_words() == words


@pytest.mark.parametrize(
    "policy", ["chunk start", "still", "previous output", "first and last", "neighbor", "adaptive"]
)
def test_each_cell_has_two_lines_that_fit(picks, policy, monkeypatch):
    sheet = picks(3000, policy)
    module = import_module(type(sheet).__module__)
    drawn: list[tuple[str, float]] = []
    plain = module.ImageDraw.ImageDraw.text

    def noting(self, place, text, *rest, **options):
        drawn.append((text, place[0] + self.textlength(text, font=options["font"])))
        assert options["font"].size >= 22, "big enough to read"
        return plain(self, place, text, *rest, **options)

    monkeypatch.setattr(module.ImageDraw.ImageDraw, "text", noting)
    picture = sheet.sheet()
    assert picture.shape[2] == 6 * 256 and float(picture.max()) <= 1
    first, second = [text for text, _ in drawn[::2]], [text for text, _ in drawn[1::2]]
    assert len(first) == len(second) == 36 and max(right for _, right in drawn) <= 256
    assert first[0] == "chunk 1, at 0.0 s" and second[0].startswith("looks at ")
    if policy == "chunk start":
        assert (first[1], second[1]) == ("chunk 2, at 2.9 s", "looks at 2.9 s")
    assert np.ptp(picture.numpy()) > 0.5, "light letters on dark ground"
