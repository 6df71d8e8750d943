"""In a real server: the same job is found again, and another job never gives back an old video."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_bench import CHANGES, SAMPLER, shorten
from safetensors.torch import load_file, save_file

from small_models import place_samples

REPO = Path(__file__).resolve().parents[2]
MODELS = (
    "diffusion_models/tiny_wan2.1_i2v.safetensors",
    "model_patches/tiny_infinitetalk_single.safetensors",
    "vae/tiny_wan_vae.safetensors",
    "audio_encoders/tiny_wav2vec2.safetensors",
    "loras/tiny_lora.safetensors",
)
FRAMES, CHUNKS = 29, 3  # 13 + 8 + 8
# Wan's own, as it comes with the model, and longer than a file name may be.
CHINESE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，杂乱的背景，倒着走"
)
FREE = 'POST /free with {"unload_models": true, "free_memory": true}'


class Shop:
    """A server with models, files and nodes of its own, and a small job."""

    def __init__(self, server: Any, workflow: dict[str, Any]) -> None:
        self.server, self.base = server, server.base
        for node in workflow.values():
            node["inputs"].update(CHANGES.get(node["class_type"], {}))
        self.workflow = workflow

    def job(self, name: str, **inputs: Any) -> dict[str, Any]:
        """A copy of the job for a video of this name."""
        workflow = copy.deepcopy(self.workflow)
        self.node(workflow, SAMPLER)["inputs"].update(filename_prefix=name, **inputs)
        return workflow

    @staticmethod
    def node(workflow: dict[str, Any], kind: str) -> dict[str, Any]:
        return next(node for node in workflow.values() if node["class_type"] == kind)

    def with_text(self, name: str, text: Any, kind: str = "ForeignConditioning", random: bool = False, **more: Any):
        """The job with a prompt that has an effect."""
        workflow = self.job(name, positive=["text", 0], **more)
        self.node(workflow, "InfiniteTalkGuidance")["inputs"]["text_scale"] = 3.0
        workflow["text"] = {"class_type": kind, "inputs": {"text": text, "random": random}}
        return workflow

    def run(self, workflow: dict[str, Any]) -> Any:
        return self.server.run(workflow, timeout=240)

    def videos(self, workflow: dict[str, Any]) -> list[Path]:
        """Run it; the files that it gave."""
        result = self.run(workflow)
        assert result.status == "success", result.error
        output = next(out for i, out in result.outputs.items() if workflow[i]["class_type"] == SAMPLER)
        return [self.server.path_of(entry) for entry in output["images"]]

    def video(self, workflow: dict[str, Any]) -> Path:
        (path,) = self.videos(workflow)
        return path

    def made_again(self) -> int:
        """How often a finished video was taken as it is."""
        return self.server.log().count("this video was made before and is taken as it is")


@pytest.fixture(scope="module")
def shop(models_dir: Path, samples: Path, comfyui: Path, small: Callable, tmp_path_factory) -> Iterator[Shop]:
    import sys

    from comfy_server import ComfyServer

    base = tmp_path_factory.mktemp("shop")
    for name in MODELS:
        (base / "models" / name).parent.mkdir(parents=True)
        shutil.copyfile(models_dir / name, base / "models" / name)
    place_samples(samples, base / "input")
    shorten(base / "input" / "voice.wav", FRAMES)
    (base / "custom_nodes").mkdir()
    shutil.copyfile(REPO / "tests" / "support" / "foreign_nodes.py", base / "custom_nodes" / "foreign_nodes.py")
    with ComfyServer(Path(sys.executable), comfyui, base, pack=REPO) as server:
        yield Shop(server, small("talking_portrait"))


def report_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


def changed_weights(path: Path, in_place: bool) -> None:
    """Another model of the same shapes in the same file, as training writes it anew."""
    tensors = {name: tensor * 1.25 for name, tensor in load_file(path).items()}
    new = path.with_name("new.safetensors")
    save_file(tensors, new)
    if in_place:
        path.write_bytes(new.read_bytes())
        new.unlink()
    else:
        new.replace(path)


def test_a_prompt_in_chinese_is_a_prompt(shop):
    assert len(CHINESE) < 255 < len(CHINESE.encode())
    workflow = shop.with_text("chinese/a", CHINESE, negative=["no", 0])
    workflow["no"] = {"class_type": "ForeignConditioning", "inputs": {"text": CHINESE * 20, "random": False}}
    path = shop.video(workflow)
    known = shop.made_again()
    assert shop.video(workflow) == path
    shop.server.free()
    shop.video(workflow)  # a prompt that comes at once may run before ComfyUI empties its cache
    assert shop.video(workflow) == path and shop.made_again() > known


def test_a_list_of_prompts_makes_a_video_of_each(shop):
    """The sampler runs once an item, in one prompt and with one graph behind it."""
    workflow = shop.with_text("prompts/a", ["list", 0])
    workflow["list"] = {"class_type": "ForeignPrompts", "inputs": {"texts": "she listens\nshe laughs"}}
    first, second = shop.videos(workflow)
    assert first != second and first.read_bytes() != second.read_bytes()
    alone = shop.video(shop.with_text("prompts/a", "she laughs"))
    assert alone == second, "the same job, asked for in another way"


def test_a_video_that_was_deleted_is_made_again(shop):
    """ComfyUI holds the node's output, and would go on naming a file that is gone."""
    workflow = shop.job("deleted/a")
    path = shop.video(workflow)
    content = path.read_bytes()
    path.unlink()
    assert shop.video(workflow) == path and path.read_bytes() == content
    known = shop.made_again()
    assert shop.video(workflow) == path and shop.made_again() == known, "from ComfyUI's cache"


def test_what_other_nodes_hand_over_is_the_same_job(shop):
    """Numbers of numpy, nothing from a muted switch, and other forms of the sound."""
    job = shop.job("foreign/a", seed=7)
    path = shop.video(job)
    for name in ("sdedit", "positive", "pinned", "seam_fade", "redo_chunks", "start_over"):
        job["nothing"] = {"class_type": "ForeignValue", "inputs": {"value": "nothing"}}
        shop.node(job, SAMPLER)["inputs"][name] = ["nothing", 0]
    job["seven"] = {"class_type": "ForeignValue", "inputs": {"value": "numpy 7"}}
    shop.node(job, SAMPLER)["inputs"]["seed"] = ["seven", 0]
    assert shop.video(job) == path
    speech = shop.node(job, "InfiniteTalkSpeechEncode")["inputs"]
    job["sound"] = {"class_type": "ForeignSound", "inputs": {"audio": speech["audio"], "form": ""}}
    speech["audio"] = ["sound", 0]
    for form in ("mapping", "numpy", "list", "rate"):
        job["sound"]["inputs"]["form"] = form
        assert shop.video(job) == path, form


@pytest.mark.parametrize(
    ("kind", "name", "value", "sentence"),
    [
        (SAMPLER, "seam_fade", "1e30", "seam_fade must be a whole number from 0 to 64, got 1e+30"),
        (SAMPLER, "color_hold", "NaN", "color_hold must be a number from 0 to 1, got NaN"),
        (SAMPLER, "guidance", "text", "guidance takes settings from InfiniteTalk Guidance, and got the text 'soon'"),
        (SAMPLER, "colour_hold", "NaN", "this node has no input 'colour_hold'; use color_hold"),
        ("InfiniteTalkGuidance", "steps", "nothing", "steps got nothing, as from a muted node"),
        ("InfiniteTalkGuidance", "shift", "1e30", "shift must be a number from 0.1 to 100, got 1e+30"),
        ("InfiniteTalkModelLoader", "strength", "NaN", "strength must be a number from 0 to 4, got NaN"),
        ("InfiniteTalkModelLoader", "infinitetalk", "text", "there is no 'soon' in models/"),
        ("InfiniteTalkReferencePicker", "width", "minus one", "width must be a whole number from 16 to 4096, got -1"),
        ("InfiniteTalkReferencePicker", "image", "list", "image takes pictures (IMAGE), and got the text '1'"),
        ("InfiniteTalkReferencePicker", "policy", "numpy 7", "policy must be one of auto, still"),
    ],
)
def test_values_over_links_are_checked_like_widgets(shop, kind, name, value, sentence):
    workflow = shop.job("never")
    workflow["odd"] = {"class_type": "ForeignValue", "inputs": {"value": value}}
    shop.node(workflow, kind)["inputs"][name] = ["odd", 0]
    result = shop.run(workflow)
    assert result.status == "error"
    assert result.error["exception_message"].startswith(sentence)
    assert result.error["exception_type"] == "infinitetalk.InputError"
    assert "NoneType" not in shop.server.log(), "as from a fingerprint of what is not known yet"


def test_a_list_of_models_makes_a_video_of_each(shop):
    workflow = shop.job("models/a")
    sampler = shop.node(workflow, SAMPLER)["inputs"]
    workflow["list"] = {
        "class_type": "ForeignStrengths",
        "inputs": {"model": sampler["model"], "lora": "tiny_lora.safetensors"},
    }
    sampler["model"] = ["list", 0]
    first, second = shop.videos(workflow)
    assert first != second and first.read_bytes() != second.read_bytes()
    shop.server.free()
    assert shop.videos(workflow) == [first, second], "both are found again"


@pytest.mark.parametrize("kind", ["ForeignCaption", "ForeignConditioning"])
def test_a_prompt_that_is_another_one_each_time_never_gives_an_old_video(shop, kind):
    """A language model's caption, wildcards: whether the node says that it changes, or not."""
    first = shop.video(shop.with_text(f"{kind}/a", "a", kind, random=True))
    shop.server.free()
    second = shop.video(shop.with_text(f"{kind}/a", "a", kind, random=True))
    assert first != second and first.read_bytes() != second.read_bytes()
    assert report_of(second)["continued_at_chunk"] is None
    third = shop.video(shop.with_text(f"{kind}/a", "a", kind, random=False))
    shop.server.free()
    assert shop.video(shop.with_text(f"{kind}/a", "a", kind, random=False)) == third, "what came out the same, is"


def test_a_model_that_may_be_another_one_each_time_is_never_found_again(shop):
    workflow = shop.job("model/a")
    sampler = shop.node(workflow, SAMPLER)["inputs"]
    workflow["any"] = {"class_type": "ForeignModel", "inputs": {"model": sampler["model"]}}
    sampler["model"] = ["any", 0]
    first, second = shop.video(workflow), shop.video(workflow)
    assert first != second and first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("in_place", [False, True], ids=["replaced", "written in place"])
@pytest.mark.parametrize("name", ["loras", "vae", "diffusion_models"])
def test_a_model_file_that_changes_while_comfyui_holds_the_old_one_is_named(shop, name, in_place):
    (model,) = (shop.base / "models" / name).glob("*.safetensors")
    before = model.read_bytes()
    workflow = shop.job(f"{name}_{in_place}/a")
    if name == "loras":
        inner = shop.node(workflow, "InfiniteTalkModelLoader")["inputs"]
        workflow["lora"] = {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"model": inner["model"], "lora_name": model.name, "strength_model": 1.0},
        }
        inner["model"] = ["lora", 0]
    shop.server.free()
    first = shop.video(workflow)
    try:
        changed_weights(model, in_place)
        result = shop.run(workflow)
        assert result.status == "error"
        assert f"{model.name} was changed on the disk" in str(result.error) and FREE.replace('"', '\\"') in json.dumps(
            result.error
        )
        shop.server.free()
        second = shop.video(workflow)
        assert second != first and second.read_bytes() != first.read_bytes()
    finally:
        model.write_bytes(before)
    shop.server.free()
    assert shop.video(workflow) == first, "the old file again is the old job again"


def test_a_model_file_that_changes_between_its_loader_and_the_sampler_is_named(shop):
    """As a training writes it while the voice is encoded: the sampler sees the object for the first time."""
    (model,) = (shop.base / "models" / "vae").glob("*.safetensors")
    before, other = model.read_bytes(), shop.base / "input" / "other_vae.safetensors"
    save_file({name: tensor * 1.25 for name, tensor in load_file(model).items()}, other)
    workflow = shop.job("meanwhile/a")
    sampler = shop.node(workflow, SAMPLER)["inputs"]
    inputs = {"value": sampler["vae"], "new": other.name, "old": f"../models/vae/{model.name}", "in_place": False}
    workflow["replace"] = {"class_type": "ForeignReplace", "inputs": inputs}
    sampler["vae"] = ["replace", 0]
    shop.server.free()
    try:
        for _ in range(2):
            result = shop.run(workflow)
            assert result.status == "error" and f"{model.name} was changed on the disk" in str(result.error)
    finally:
        model.write_bytes(before)
        shop.server.free()


@pytest.mark.parametrize("in_place", [False, True], ids=["replaced", "written in place"])
def test_a_source_that_is_replaced_after_it_was_opened(shop, small, in_place):
    """Between the picker, which opens it, and the sampler."""
    folder = shop.base / "input"
    shutil.copyfile(folder / "portrait.mp4", folder / "source.mp4")
    make_other_video(folder / "portrait.mp4", folder / "other.mp4")
    workflow = small("video_dubbing")
    for node in workflow.values():
        node["inputs"].update(CHANGES.get(node["class_type"], {}))
    shop.node(workflow, "LoadVideo")["inputs"]["file"] = "source.mp4"
    sampler = shop.node(workflow, SAMPLER)["inputs"]
    sampler["filename_prefix"] = f"source_{in_place}/a"
    plain = copy.deepcopy(workflow)
    inputs = {"value": sampler["reference"], "new": "other.mp4", "old": "source.mp4", "in_place": in_place}
    workflow["replace"] = {"class_type": "ForeignReplace", "inputs": inputs}
    sampler["reference"] = ["replace", 0]
    if in_place:
        result = shop.run(workflow)
        assert result.status == "error" and "the source file was changed after it was opened" in str(result.error)
        of_other = shop.video(plain)
    else:
        of_first = shop.video(workflow)
        of_other = shop.video(plain)
        assert of_first != of_other
        shutil.copyfile(folder / "portrait.mp4", folder / "source.mp4")
        assert shop.video(plain) == of_first, "it was made of what was opened, and is known by it"
    shutil.copyfile(folder / "portrait.mp4", folder / "source.mp4")
    assert shop.video(plain).read_bytes() != of_other.read_bytes()


def make_other_video(source: Path, target: Path) -> None:
    """Another film of the same size and length: its picture upside down."""
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream("libx264", rate=old.streams.video[0].average_rate)
        stream.height, stream.width = old.streams.video[0].height, old.streams.video[0].width
        for frame in old.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")[::-1].copy()
            new.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        new.mux(stream.encode())


def test_after_an_upgrade_an_unfinished_job_says_what_it_costs(shop):
    workflow = shop.job("upgrade/a", seed=77)
    sampler = next(i for i, node in workflow.items() if node["class_type"] == SAMPLER)
    stopped = []

    def stop(message: Any) -> None:
        in_chunk_2 = message.type == "progress" and message.data["node"] == sampler and message.data["value"] >= 3
        if in_chunk_2 and not stopped:
            stopped.append(message)
            shop.server.interrupt()

    result = shop.server.run(workflow, timeout=240, on_message=stop)
    assert result.status == "interrupted", result.error
    pretend = shop.base / "custom_nodes" / "pretend.json"
    pretend.write_text(json.dumps({"comfyui": "9.9"}))
    try:
        shop.server.stop()
        shop.server.start()
        path = shop.video(workflow)
    finally:
        pretend.unlink()
        shop.server.stop()
        shop.server.start()
    manifest = json.loads((shop.base / "output" / report_of(path)["run"] / "run.json").read_text())
    (warning,) = [text for text in manifest["executions"][0]["warnings"] if "begun before" in text]
    assert "comfyui was " in warning and "is now 9.9" in warning and "finished chunks" in warning
    assert report_of(path)["continued_at_chunk"] is None
    known = path.read_bytes()
    again = shop.video(workflow)
    assert report_of(again)["continued_at_chunk"] > 1, "with the old version it goes on where it stopped"
    assert again != path and again.read_bytes() == known
