"""What becomes of a workflow when it is put on the small models."""

from __future__ import annotations

TRAINED_CHUNK = 33
WORKFLOW = {
    "1": {
        "class_type": "UNETLoader",
        "inputs": {"unet_name": "wan14b.safetensors", "weight_dtype": "fp8_e4m3fn"},
    },
    "2": {"class_type": "CLIPLoader", "inputs": {"clip_name": "umt5.safetensors", "type": "wan"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 0], "text": "a person talks"}},
    "4": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "clip_vision_h.safetensors"}},
    "5": {
        "class_type": "InfiniteTalkModelLoader",
        "inputs": {"model": ["7", 0], "infinitetalk": "infinitetalk_single.safetensors", "strength": 1.0},
    },
    "6": {
        "class_type": "InfiniteTalkChunkSampler",
        "inputs": {"model": ["5", 0], "positive": ["3", 0], "clip_vision": ["4", 0], "seed": 7, "chunk_frames": 81},
    },
    "7": {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"lora_name": "lightx2v.safetensors", "strength_model": 1.0, "model": ["1", 0]},
    },
}


def test_file_names_become_small_ones(small) -> None:
    workflow = small(WORKFLOW)
    assert workflow["1"]["inputs"] == {"unet_name": "tiny_wan2.1_i2v.safetensors", "weight_dtype": "default"}
    assert workflow["5"]["inputs"]["infinitetalk"] == "tiny_infinitetalk_single.safetensors"
    assert workflow["5"]["inputs"]["strength"] == 1.0


def test_what_has_no_small_model_goes_with_all_that_needs_it(small) -> None:
    workflow = small(WORKFLOW)
    assert workflow.keys() == {"1", "5", "6", "7"}
    assert workflow["6"]["inputs"] == {"model": ["5", 0], "seed": 7, "chunk_frames": 81}


def test_the_trained_models_come_with_their_settings_and_without_a_lora(trained) -> None:
    workflow = trained(WORKFLOW)
    assert workflow.keys() == {"1", "5", "6"}
    assert workflow["1"]["inputs"]["unet_name"] == "small_wan2.1_i2v.safetensors"
    assert workflow["5"]["inputs"]["model"] == ["1", 0], "the LoRA is passed by"
    assert workflow["6"]["inputs"]["chunk_frames"] == TRAINED_CHUNK


def test_every_trained_model_is_in_the_repository(trained, models_dir) -> None:
    files = sorted(path.relative_to(models_dir).as_posix() for path in models_dir.glob("*/small_*.safetensors"))
    assert files == [
        "audio_encoders/small_wav2vec2.safetensors",
        "controlnet/small_uni3c.safetensors",
        "diffusion_models/small_wan2.1_i2v.safetensors",
        "model_patches/small_infinitetalk_single.safetensors",
        "vae/small_wan_vae.safetensors",
    ]
    assert sum((models_dir / file).stat().st_size for file in files) <= 25 * 2**20, "a repository that clones quickly"


def test_the_given_workflow_stays_as_it_was(small) -> None:
    before = repr(WORKFLOW)
    small(WORKFLOW)
    assert repr(WORKFLOW) == before
