"""The server harness itself: it starts, follows, interrupts, and leaves nothing running."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 2, "color": 255}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def _sampling(steps: int, seed: int) -> dict:
    """Core nodes only: sample the small Wan model for `steps` steps."""
    return {
        "1": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "tiny_wan2.1_i2v.safetensors", "weight_dtype": "default"},
        },
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_wan_vae.safetensors"}},
        "3": {
            "class_type": "EmptyHunyuanLatentVideo",
            "inputs": {"width": 128, "height": 128, "length": 17, "batch_size": 1},
        },
        "4": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["7", 0]}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["7", 0],
                "negative": ["4", 0],
                "latent_image": ["3", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["2", 0]}},
        "7": {"class_type": "TestConditioning", "inputs": {}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
    }


CONDITIONING_NODE = """
import torch

class TestConditioning:
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return ([[torch.zeros(1, 8, 4096), {}]],)

NODE_CLASS_MAPPINGS = {"TestConditioning": TestConditioning}
"""


@pytest.fixture(scope="module")
def sampling_server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """A server with a node that makes text conditioning without a text encoder; without the pack."""
    import sys

    from comfy_server import ComfyServer

    base = tmp_path_factory.mktemp("sampling")
    (base / "models").symlink_to(models_dir, target_is_directory=True)
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "test_conditioning.py").write_text(CONDITIONING_NODE)
    comfyui = Path(sys.modules["comfy"].__path__[0]).parent
    with ComfyServer(Path(sys.executable), comfyui, base) as server:
        yield server


def test_a_workflow_runs_and_its_messages_are_followed(sampling_server) -> None:
    seen = []
    result = sampling_server.run(PICTURE, timeout=60, on_message=seen.append)
    assert result.status == "success" and result.error is None
    assert result.messages[0].type == "execution_start"
    assert [m.type for m in seen] == [m.type for m in result.messages]
    files = result.files()
    assert len(files) == 2 and all(sampling_server.path_of(file).is_file() for file in files)
    assert sampling_server.history(result.prompt_id)["status"]["completed"]


def test_small_models_make_a_picture_with_core_nodes(sampling_server) -> None:
    from PIL import Image, ImageStat

    result = sampling_server.run(_sampling(steps=2, seed=1), timeout=120)
    assert result.status == "success", result.error
    assert [p["value"] for p in result.of_type("progress") if p["node"] == "5"][-1] == 2
    files = result.files()
    assert len(files) == 17
    with Image.open(sampling_server.path_of(files[8])) as picture:
        assert picture.size == (128, 128)
        stat = ImageStat.Stat(picture.convert("RGB"))
    assert all(20 < mean < 235 for mean in stat.mean) and all(deviation > 5 for deviation in stat.stddev)


def test_interrupt_stops_a_running_workflow(sampling_server) -> None:
    prompt = sampling_server.queue(_sampling(steps=5000, seed=2))
    timer = threading.Timer(60, sampling_server.interrupt)  # never hang, whatever happens below
    timer.start()
    try:
        stop_once = iter([True])

        def stop_at_first_step(message) -> None:
            if message.type == "progress" and next(stop_once, False):
                sampling_server.interrupt()

        started = time.monotonic()
        result = sampling_server.follow(prompt, timeout=90, on_message=stop_at_first_step)
    finally:
        timer.cancel()
    assert result.status == "interrupted"
    assert time.monotonic() - started < 50


def test_a_failing_workflow_says_why(sampling_server) -> None:
    from comfy_client import RefusedError

    with pytest.raises(RefusedError, match="NoSuchNode"):
        sampling_server.queue({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_a_prompt_that_takes_too_long_is_interrupted(sampling_server) -> None:
    with pytest.raises(TimeoutError):
        sampling_server.run(_sampling(steps=5000, seed=3), timeout=1)
    assert sampling_server.run(PICTURE, timeout=60).status == "success", "the server is free again"


def test_upload_and_object_info(sampling_server, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    assert sampling_server.upload(tmp_path / "red.png") == "red.png"
    assert (sampling_server.base / "input" / "red.png").is_file()
    assert "KSampler" in sampling_server.object_info()


def test_stopping_leaves_no_process_and_frees_the_port(sampling_server) -> None:
    """The last test of the server that the others use."""
    import socket

    server = sampling_server
    pid, port = server.pid, server.port
    assert server.get("/system_stats")
    server.stop()
    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    server.stop()  # a second time does nothing


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    import sys

    from comfy_server import ComfyServer, ServerError

    broken = tmp_path / "host"
    (broken / "comfy").mkdir(parents=True)
    (broken / "comfy" / "cli_args.py").write_text("")
    (broken / "main.py").write_text("raise SystemExit('this host is broken')")
    with pytest.raises(ServerError, match="this host is broken"):
        ComfyServer(Path(sys.executable), broken, tmp_path / "base", start_timeout=30).start()
