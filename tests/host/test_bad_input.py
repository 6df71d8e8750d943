"""What cannot work is refused in one sentence over the API, before anything is sampled, and the server goes on."""

from __future__ import annotations

import pickle
import threading
import time
import wave
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

SMALL = {"size": "custom", "width": 64, "height": 64}
PRESET = {"preset": "custom", "steps": 1, "text_scale": 1.0, "audio_scale": 1.0, "shift": 7.0}


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path.name


@pytest.fixture(scope="module")
def files(server) -> SimpleNamespace:
    """Wrong and odd files, put into the running server's folders."""
    models, inputs = server.base / "models", server.base / "input"
    wan = load_file(models / "diffusion_models" / "tiny_wan2.1_i2v.safetensors")
    talk = models / "model_patches" / "tiny_infinitetalk_single.safetensors"
    text_only = {k: v for k, v in wan.items() if "_img" not in k and "img_emb" not in k}
    save_file(text_only, models / "diffusion_models" / "wan22_i2v.safetensors")
    narrow = text_only | {"patch_embedding.weight": wan["patch_embedding.weight"][:, :16].contiguous()}
    save_file(narrow, models / "diffusion_models" / "wan_t2v.safetensors")
    weights = load_file(talk)
    fewer = {k: v for k, v in weights.items() if not k.startswith("blocks.2.")}
    save_file(fewer, models / "model_patches" / "two_blocks.safetensors")
    holed = {k: v for k, v in weights.items() if k != "blocks.1.norm_x.bias"}
    save_file(holed, models / "model_patches" / "holed.safetensors")
    (models / "model_patches" / "cut.safetensors").write_bytes(talk.read_bytes()[:-1000])
    (models / "model_patches" / "lora.safetensors").write_bytes(
        (models / "loras" / "tiny_lora.safetensors").read_bytes()
    )
    (models / "audio_encoders" / "code.bin").write_bytes(pickle.dumps({"weights": SimpleNamespace(a=1)}))
    wider = load_file(models / "audio_encoders" / "tiny_wav2vec2.safetensors")
    first = {k: v for k, v in wider.items() if ".encoder.layers." not in k or ".encoder.layers.0." in k}
    save_file(first, models / "audio_encoders" / "one_layer.safetensors")
    (models / "audio_encoders" / "page.safetensors").write_text("<!DOCTYPE html><html>Sign in</html>")
    write_wav(inputs / "silence.wav", np.zeros(16000))
    write_wav(inputs / "one_frame.wav", np.full(640, 0.1))
    write_wav(inputs / "one_sample.wav", np.full(1, 0.1))
    Image.new("RGBA", (50, 37), (200, 100, 50, 255)).save(inputs / "odd.png")
    with av.open(str(inputs / "no_picture.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
        frame.rate = 16000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return SimpleNamespace(models=models, inputs=inputs)


@pytest.fixture
def prompt(small, files):
    """The talking portrait on small models, one step at 64 x 64; `prompt(node_type, input=value …)` changes it."""

    def make(*changes: tuple[str, dict]) -> dict:
        workflow = small("talking_portrait")
        always = [
            ("InfiniteTalkReferencePicker", SMALL),
            ("InfiniteTalkGuidance", PRESET),
            ("LoadAudio", {"audio": "one_frame.wav"}),
            ("InfiniteTalkChunkSampler", {"chunk_frames": 5, "context_frames": 1}),
        ]
        for kind, inputs in [*always, *changes]:
            for node in workflow.values():
                if node["class_type"] == kind:
                    node["inputs"].update(inputs)
        return workflow

    return make


def find(workflow: dict, kind: str) -> str:
    return next(i for i, node in workflow.items() if node["class_type"] == kind)


def refusal(server, workflow: dict) -> str:
    """The sentence with which the server refuses: at once (validation) or when the node runs."""
    from comfy_client import RefusedError

    try:
        result = server.follow(server.queue(workflow), timeout=60)
    except RefusedError as error:
        return str(error)
    assert result.status == "error", "this should not have worked"
    return str(result.error)


TALK = "InfiniteTalkModelLoader"
ENCODER = "InfiniteTalkAudioEncoderLoader"
SAMPLER = "InfiniteTalkChunkSampler"
PICKER = "InfiniteTalkReferencePicker"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            [(TALK, {"infinitetalk": "lora.safetensors"})],
            "lora.safetensors is a LoRA (LoraLoaderModelOnly takes it from models/loras), not InfiniteTalk weights",
        ),
        ([(TALK, {"infinitetalk": "tiny_wan2.1_i2v.safetensors"})], "is a Wan 2.1 I2V model (Load Diffusion Model"),
        ([(TALK, {"infinitetalk": "cut.safetensors"})], "cut.safetensors is incomplete"),
        ([(TALK, {"infinitetalk": "two_blocks.safetensors"})], "made for a model of 2 blocks"),
        ([(TALK, {"infinitetalk": "holed.safetensors"})], "lacks 1 tensor, first blocks.1.norm_x.bias"),
        ([(TALK, {"infinitetalk": "../../secret.safetensors"})], ""),
        (
            [("UNETLoader", {"unet_name": "wan_t2v.safetensors"})],
            "the MODEL is a Wan 2.1 or 2.2 T2V model of 14B, not a Wan 2.1 I2V model; get a",
        ),
        ([("UNETLoader", {"unet_name": "wan22_i2v.safetensors"})], "the MODEL is a Wan 2.2 I2V model"),
        ([(ENCODER, {"audio_encoder": "code.bin"})], "code.bin"),
        ([(ENCODER, {"audio_encoder": "one_layer.safetensors"})], "the audio encoder gives 1 layers of"),
        ([(SAMPLER, {"chunk_frames": 6})], "chunk length must be 4n+1 frames"),
        ([(SAMPLER, {"context_frames": 2})], "context frames must be 4n+1 frames"),
        ([(SAMPLER, {"context_frames": 5})], "context frames (5) must be fewer than the chunk length (5)"),
        ([(SAMPLER, {"color_anchor": "the moon"})], "color_anchor"),
        ([(SAMPLER, {"filename_prefix": "../../away"})], "leads out of ComfyUI's output folder; write a name inside"),
        ([(SAMPLER, {"filename_prefix": "video/" + 240 * "x"})], "is 240 bytes long, too long for a file"),
        ([(ENCODER, {"audio_encoder": "page.safetensors"})], "page.safetensors is a web page, not a weights file"),
        ([(PICKER, {"width": 70})], "multiples of 16, got 70 x 64; the nearest is 64 x 64"),
        ([(PICKER, {"policy": "zzz"})], "policy"),
        ([(PICKER, {"size": "8K"})], "size"),
        ([("InfiniteTalkGuidance", {"preset": "best"})], "preset"),
        ([(TALK, {"infinitetalk": "none.safetensors"})], ""),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_refused_in_one_sentence(server, prompt, changes, sentence):
    answer = refusal(server, prompt(*changes))
    assert sentence in answer
    assert "Traceback" not in sentence


def test_a_model_without_infinitetalk_weights(server, prompt):
    workflow = prompt()
    workflow[find(workflow, SAMPLER)]["inputs"]["model"] = [find(workflow, "UNETLoader"), 0]
    assert "connect it through the InfiniteTalk Model Loader first" in refusal(server, workflow)


def test_a_vae_of_another_model(pack):
    backend = import_module(f"{pack.__name__}.nodes.host.sampling.backend")
    with pytest.raises(ValueError, match=r"4 latent channels and is for pictures; load wan_2\.1_vae"):
        backend.check_vae(SimpleNamespace(latent_channels=4, latent_dim=2))


def test_picture_and_video_or_neither(server, prompt):
    workflow = prompt()
    picker = workflow[find(workflow, PICKER)]["inputs"]
    picture = picker.pop("image")
    assert "neither is connected" in refusal(server, workflow)
    workflow["99"] = {"class_type": "LoadVideo", "inputs": {"file": "portrait.mp4"}}
    picker.update(image=picture, video=["99", 0])
    assert "both are connected" in refusal(server, workflow)


def test_a_video_without_pictures(server, prompt, files):
    workflow = prompt()
    workflow[find(workflow, PICKER)]["inputs"].pop("image")
    workflow["99"] = {"class_type": "LoadVideo", "inputs": {"file": "no_picture.mp4"}}
    workflow[find(workflow, PICKER)]["inputs"]["video"] = ["99", 0]
    assert "no video" in refusal(server, workflow).lower() or "no picture" in refusal(server, workflow).lower()


@pytest.mark.parametrize(
    ("waveform", "sentence"),
    [
        (torch.zeros(1, 1, 0), "the sound is empty"),
        (torch.full((1, 1, 100), float("nan")), "NaN or infinite"),
        (torch.zeros(2, 1, 100), "batch of 2 clips"),
    ],
)
def test_sound_that_cannot_be_used(pack, waveform, sentence):
    audio = import_module(f"{pack.__name__}.nodes.host.media.audio")
    with pytest.raises(ValueError, match=sentence):
        audio.sound_of({"waveform": waveform, "sample_rate": 16000})
    with pytest.raises(ValueError, match="there is no sound in this AUDIO"):
        audio.sound_of(None)


def frames_of(server, result) -> int:
    (video,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
    with av.open(str(server.path_of(video))) as file:
        return sum(1 for _ in file.decode(video=0))


@pytest.mark.parametrize(
    ("sound", "picture", "frames"),
    [("silence.wav", "portrait.png", 25), ("one_frame.wav", "odd.png", 1), ("one_sample.wav", "odd.png", 1)],
)
def test_odd_but_fine(server, prompt, sound, picture, frames):
    """Silence, a single frame, a single sample, a tiny picture with transparency."""
    workflow = prompt(("LoadAudio", {"audio": sound}), ("LoadImage", {"image": picture}))
    result = server.follow(server.queue(workflow), timeout=120)
    assert result.status == "success", result.error
    assert frames_of(server, result) == frames


def videos_in(server) -> set[Path]:
    """What was made; not what is kept to go on from."""
    return {p for p in (server.base / "output").rglob("*.mp4") if "infinitetalk_runs" not in p.parts}


def test_an_interrupt_stops_within_a_step_and_leaves_no_broken_file(server, prompt):
    """After the first chunk: what is finished stays as a whole file of its own name."""
    before = videos_in(server)
    workflow = prompt(
        ("LoadAudio", {"audio": "voice.wav"}),
        (PICKER, {"width": 128, "height": 128}),
        ("InfiniteTalkGuidance", {"steps": 6}),
        (SAMPLER, {"chunk_frames": 13, "context_frames": 5}),
    )
    prompt_id = server.queue(workflow)
    stopped = {}

    def stop_after_the_first_chunk():
        time.sleep(0.1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if list((server.base / "output").rglob("*.part.mp4")):
                time.sleep(2)
                break
            time.sleep(0.05)
        stopped["at"] = time.monotonic()
        server.interrupt()

    thread = threading.Thread(target=stop_after_the_first_chunk)
    thread.start()
    result = server.follow(prompt_id, timeout=120)
    took = time.monotonic() - stopped["at"]
    thread.join()
    assert result.status == "interrupted"
    assert took < 5
    left = videos_in(server) - before
    assert not [p for p in left if ".part" in p.name]
    for path in left:
        assert "_interrupted" in path.name
        with av.open(str(path)) as file:
            assert sum(1 for _ in file.decode(video=0)) % 8 in (5, 13 % 8)


def test_the_server_still_works_after_all_that(server, prompt):
    result = server.follow(server.queue(prompt(("InfiniteTalkChunkSampler", {"seed": 7}))), timeout=60)
    assert result.status == "success", result.error


def test_a_file_added_later_is_offered(server):
    added = server.base / "models" / "model_patches" / "added_infinitetalk_later.safetensors"
    added.write_bytes(b"")
    try:
        info = server.object_info()["InfiniteTalkModelLoader"]["input"]["required"]["infinitetalk"]
        assert added.name in str(info)
    finally:
        added.unlink()
