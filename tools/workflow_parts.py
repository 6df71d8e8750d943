"""Build the parts of the pack's workflows: nodes, groups, notes, and the columns that most workflows share.

tools/workflow_designs.py combines them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Link = tuple[int, int]  # (node id, output number)


@dataclass(frozen=True)
class Node:
    """A node: widget values and links by input name; other widgets keep their defaults."""

    id: int
    type: str
    x: int
    y: int
    width: int
    height: int
    widgets: dict[str, Any] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    title: str = ""
    color: tuple[str, str] | None = None


@dataclass(frozen=True)
class Group:
    """A colored frame with a title."""

    title: str
    x: int
    y: int
    width: int
    height: int
    color: str


@dataclass(frozen=True)
class Design:
    """One workflow; `note` is Markdown."""

    name: str
    nodes: tuple[Node, ...]
    groups: tuple[Group, ...]
    note: str


HF = "https://huggingface.co"
WAN = f"{HF}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
# For each file its folder in ComfyUI's models and its download address.
FILES = {
    "wan2.1_i2v_480p_14B_fp8_scaled.safetensors": ("diffusion_models", f"{WAN}/diffusion_models"),
    "wan2.1_infiniteTalk_single_fp16.safetensors": ("model_patches", f"{WAN}/model_patches"),
    "wan2.1_infiniteTalk_multi_fp16.safetensors": ("model_patches", f"{WAN}/model_patches"),
    "wan_2.1_vae.safetensors": ("vae", f"{WAN}/vae"),
    "clip_vision_h.safetensors": ("clip_vision", f"{WAN}/clip_vision"),
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": ("text_encoders", f"{WAN}/text_encoders"),
    "wav2vec2-chinese-base_fp16.safetensors": ("audio_encoders", f"{HF}/Kijai/wav2vec2_safetensors/resolve/main"),
    "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors": (
        "loras",
        f"{HF}/lightx2v/Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v/resolve/main/loras",
    ),
    "Wan21_Uni3C_controlnet_fp16.safetensors": ("controlnet", f"{HF}/Kijai/WanVideo_comfy/resolve/main"),
}
UNI3C = "Wan21_Uni3C_controlnet_fp16.safetensors"
SINGLE, MULTI = (f"wan2.1_infiniteTalk_{kind}_fp16.safetensors" for kind in ("single", "multi"))
BLUE, GREEN, PURPLE, RED = "#3f789e", "#3f7a4f", "#6b4f8a", "#8a4a4a"
POSITIVE_COLOR, NEGATIVE_COLOR = ("#232", "#353"), ("#322", "#533")
NEGATIVE = (
    "blurry, distorted face, deformed mouth, crooked teeth, flicker, frozen picture, overexposed, "
    "subtitles, watermark, extra fingers"
)

# Node ids that all workflows share: 1 to 9 models and text, 10 to 19 speech, 20 to 29 picture, from 30 the rest.
MODEL, LORA, PATCH, VAE, CLIP_VISION, CLIP, POSITIVE, NEGATIVE_TEXT = range(1, 9)
ENCODER, SPEECH, VOICE, VOICE_2 = 10, 11, 12, 13
SOURCE, PICKER, MASK, DEPTH, PATH = 20, 21, 22, 23, 24
GUIDANCE, SAMPLER, SDEDIT, UNI3C_LOADER, CAMERA, PINNED = 30, 31, 32, 33, 34, 35
NOTE = 40


def models(weights: str) -> tuple[Node, ...]:
    """Return the column of loaders; `weights` is the file of InfiniteTalk weights."""
    x, width = 40, 400
    return (
        Node(MODEL, "UNETLoader", x, 80, width, 82, {"unet_name": "wan2.1_i2v_480p_14B_fp8_scaled.safetensors"}),
        Node(
            LORA,
            "LoraLoaderModelOnly",
            x,
            212,
            width,
            82,
            {"lora_name": "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors"},
            {"model": (MODEL, 0)},
            title="Fast: 8 steps instead of 40 (LoRA)",
        ),
        Node(PATCH, "InfiniteTalkModelLoader", x, 344, width, 106, {"infinitetalk": weights}, {"model": (LORA, 0)}),
        Node(VAE, "VAELoader", x, 500, width, 58, {"vae_name": "wan_2.1_vae.safetensors"}),
        Node(CLIP_VISION, "CLIPVisionLoader", x, 608, width, 58, {"clip_name": "clip_vision_h.safetensors"}),
        Node(
            CLIP,
            "CLIPLoader",
            x,
            716,
            width,
            106,
            {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan"},
        ),
    )


def voice(node: int, file: str, y: int, title: str = "") -> Node:
    """Return a Load Audio node."""
    return Node(node, "LoadAudio", 500, y, 340, 136, {"audio": file}, title=title)


def one_voice() -> tuple[Node, ...]:
    """Return the speech nodes of one person."""
    return (
        voice(VOICE, "voice.wav", 80),
        Node(ENCODER, "InfiniteTalkAudioEncoderLoader", 880, 80, 340, 58, ENCODER_FILE),
        Node(SPEECH, "InfiniteTalkSpeechEncode", 880, 188, 340, 46, {}, {"encoder": (ENCODER, 0), "audio": (VOICE, 0)}),
    )


ENCODER_FILE = {"audio_encoder": "wav2vec2-chinese-base_fp16.safetensors"}
IMAGE_LINK: dict[str, Link] = {"image": (SOURCE, 0)}
VIDEO_LINK: dict[str, Link] = {"video": (SOURCE, 0)}
# Given the speech, the Reference Picker shows the references of all its chunks.
DUB_LINKS: dict[str, Link] = {**VIDEO_LINK, "speech": (SPEECH, 0)}


def picture(
    loader: str, file: dict[str, str], link: dict[str, Link], y: int, heights: tuple[int, int], **widgets: Any
) -> tuple[Node, ...]:
    """Return the nodes of the source and the Reference Picker; `heights` are theirs, `y` is the top of both."""
    return (
        Node(SOURCE, loader, 500, y, 340, heights[0], file),
        Node(PICKER, "InfiniteTalkReferencePicker", 880, y, 340, heights[1], widgets, link),
    )


def sampling(prompt: str, **more: Link) -> tuple[Node, ...]:
    """Return the nodes of text, guidance and sampler; `more` are additional inputs of the sampler."""
    x, text = 1280, {"clip": (CLIP, 0)}
    inputs: dict[str, Link] = {
        "model": (PATCH, 0),
        "vae": (VAE, 0),
        "speech": (SPEECH, 0),
        "reference": (PICKER, 0),
        "guidance": (GUIDANCE, 0),
        "clip_vision": (CLIP_VISION, 0),
        "positive": (POSITIVE, 0),
        "negative": (NEGATIVE_TEXT, 0),
        **more,
    }
    return (
        Node(POSITIVE, "CLIPTextEncode", x, 80, 360, 150, {"text": prompt}, text, "What the scene is", POSITIVE_COLOR),
        Node(
            NEGATIVE_TEXT,
            "CLIPTextEncode",
            x,
            280,
            360,
            150,
            {"text": NEGATIVE},
            text,
            "What it should not be (quality presets)",
            NEGATIVE_COLOR,
        ),
        Node(GUIDANCE, "InfiniteTalkGuidance", x, 480, 360, 226, {"preset": "distill LoRA (8 steps)"}),
        Node(SAMPLER, "InfiniteTalkChunkSampler", 1700, 80, 380, 860, {}, inputs),
    )


def camera(x: int, y: int, width: int, **guide: Link) -> tuple[Node, ...]:
    """Return Uni3C, which follows the source's camera or that of `guide`, and ends before the lips are formed."""
    return (
        Node(UNI3C_LOADER, "InfiniteTalkUni3CLoader", x, y, width, 58, {"uni3c": UNI3C}),
        Node(
            CAMERA,
            "InfiniteTalkUni3CCamera",
            x,
            y + 108,
            width,
            150,
            {"end": 0.3},
            {"uni3c": (UNI3C_LOADER, 0), **guide},
        ),
    )


def groups(speech_height: int, picture_height: int, *more: Group) -> tuple[Group, ...]:
    """Return the groups; the picture's begins below the speech's; `more` are those of a single workflow."""
    top = speech_height + 20
    return (
        Group("Models", 20, 0, 440, 844, BLUE),
        Group("Speech", 480, 0, 760, speech_height, GREEN),
        Group("Picture", 480, top, 760, picture_height, PURPLE),
        Group("Text and guidance", 1260, 0, 400, 726, BLUE),
        Group("Sampling", 1680, 0, 420, 960, RED),
        *more,
    )


MODEL_NOTE = """## Model files
ComfyUI offers to download what is missing. The folders, in `ComfyUI/models/`:

{files}

## What to change first
* **Best quality**: select the LoRA, press Ctrl+B (bypass), and set the preset to *quality 480p (40 steps)*. It takes
about 8 times as long.
* **Faster**: preset *distill LoRA (4 steps)*.
* **Livelier lips**: preset *custom*, steps 8, text 1, audio 3.
* **Out of memory**: size *custom*, for example 640 x 368; or `chunk_frames` 49 in the sampler.

The i button of a selected node opens its help."""


def file_list(unneeded: tuple[str, ...]) -> str:
    """Return the files that a workflow needs, all except `unneeded`, in Markdown."""
    return "\n".join(
        f"* `{folder}/` [{name}]({url}/{name})" for name, (folder, url) in FILES.items() if name not in unneeded
    )


def note(text: str, *unneeded: str) -> str:
    """Return the note of a workflow that does not need the files `unneeded`."""
    return f"{text}\n{MODEL_NOTE.format(files=file_list(unneeded))}"
