"""The Quality node: one choice switches the LoRA and the guidance."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

LORA = "tiny_lora.safetensors"


@pytest.fixture
def quality(pack: Any, files: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The node, with the models folder of the tests."""
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(files.lora.parent)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    return import_module(f"{pack.__name__}.nodes.quality").Quality


@pytest.fixture(scope="module")
def model(files: SimpleNamespace) -> Any:
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(files.wan))


@pytest.mark.parametrize(
    ("choice", "steps", "with_lora"), [("fast", 4, True), ("balanced", 8, True), ("best", 40, False)]
)
def test_a_choice_is_the_lora_and_the_steps(
    quality: Any, model: Any, core: Any, choice: str, steps: int, with_lora
) -> None:
    patched, guidance = quality.execute(model=model, quality=choice, lora=LORA).result
    assert bool(patched.patches) is with_lora
    settings = guidance or core.settings.preset_for(480, 832)
    assert settings.steps == steps
    assert not model.patches, "the model itself stays as it was"


def test_best_asks_for_no_lora_file(quality: Any, model: Any) -> None:
    assert quality.execute(model=model, quality="best", lora="gone.safetensors").result[0] is model
    assert quality.validate_inputs("gone.safetensors") is True
    assert quality.fingerprint_inputs("best", "gone.safetensors") == ""


@pytest.mark.parametrize("choice", ["fast", "balanced"])
def test_a_lora_that_is_not_there_is_said_in_a_sentence(quality: Any, model: Any, choice: str) -> None:
    with pytest.raises(Exception, match=r"there is no 'gone.safetensors' in models/loras; .* best, which needs none"):
        quality.execute(model=model, quality=choice, lora="gone.safetensors")


def test_a_lora_of_another_model_is_said_in_a_sentence(
    quality: Any, model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import folder_paths
    import torch
    from safetensors.torch import save_file

    foreign = {f"lora_unet_other.{part}.weight": torch.zeros(2, 2) for part in ("lora_up", "lora_down")}
    save_file(foreign, tmp_path / "other.safetensors")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    with pytest.raises(Exception, match=r"other.safetensors changes nothing in this MODEL"):
        quality.execute(model=model, quality="fast", lora="other.safetensors")


@pytest.mark.parametrize("choice", ["", "Best", None, 3])
def test_another_choice_is_refused(quality: Any, model: Any, choice: Any) -> None:
    with pytest.raises(Exception, match="quality"):
        quality.execute(model=model, quality=choice, lora=LORA)
