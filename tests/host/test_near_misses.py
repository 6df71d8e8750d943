"""A MODEL of another kind is refused by what it is, and every file that may be the right one is offered."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import comfy.ldm.wan.model as wan
import comfy.ops
import folder_paths
import pytest

SIZES = {"dim": 256, "ffn_dim": 64, "num_heads": 2, "num_layers": 1, "out_dim": 16}
I2V = {"model_type": "i2v", "in_dim": 36}


def model(kind: type, **sizes) -> SimpleNamespace:
    backbone = kind(**{**SIZES, **sizes}, device="meta", operations=comfy.ops.manual_cast)
    return SimpleNamespace(model=SimpleNamespace(diffusion_model=backbone))


MODELS = {
    "Wan 2.1 or 2.2 T2V model of 14B": lambda: model(wan.WanModel, model_type="t2v", in_dim=16),
    "T2V model of 1.3B": lambda: model(wan.WanModel, model_type="t2v", in_dim=16, dim=1536, num_heads=12),
    "I2V model of 1.3B": lambda: model(wan.WanModel, **I2V, dim=1536, num_heads=12),
    "Wan 2.2 I2V model, high or low noise": lambda: model(wan.WanModel, model_type="t2v", in_dim=36),
    "Wan 2.2 5B model": lambda: model(wan.WanModel, model_type="t2v", in_dim=48, dim=3072, num_heads=24),
    "first-last-frame model": lambda: model(wan.WanModel, **I2V, flf_pos_embed_token_number=514),
    "Wan Fun control model": lambda: model(wan.WanModel, **I2V, in_dim_ref_conv=16),
    "Wan VACE model": lambda: model(wan.VaceWanModel, model_type="vace", in_dim=16, vace_layers=1, vace_in_dim=96),
    "Wan Fun camera model": lambda: model(wan.CameraWanModel, model_type="camera", in_dim=32),
    "HuMo model": lambda: model(wan.HumoWanModel, model_type="humo", in_dim=36),
    "Wan 2.2 S2V model": lambda: model(
        wan.WanModel_S2V, model_type="s2v", in_dim=16, audio_inject_layers=[0], cond_dim=16, num_audio_token=4
    ),
    "a SimpleNamespace": lambda: SimpleNamespace(model=SimpleNamespace(diffusion_model=object())),
}


@pytest.mark.parametrize("what", MODELS)
def test_another_model_is_named_and_what_to_get_instead(core, what):
    with pytest.raises(ValueError, match=r"the MODEL is .*, not a Wan 2\.1 I2V model; get .* into models/diff") as said:
        core.backbone.check_backbone(MODELS[what]())
    assert what in str(said.value)


def test_the_right_model_is_taken(core):
    right = model(wan.WanModel, **I2V)
    assert core.backbone.check_backbone(right) is right.model.diffusion_model


def test_gguf_files_are_offered_though_comfyui_leaves_them_out(pack, monkeypatch, tmp_path):
    files = import_module(f"{pack.__name__}.nodes.host.model.model_files")
    files.register_folders()
    patches = tmp_path / "model_patches" / "talk"
    patches.mkdir(parents=True)
    (patches / "InfiniteTalk_Single_Q8.gguf").touch()
    (patches / "readme.txt").touch()
    roots = ([str(tmp_path / "model_patches")], folder_paths.folder_names_and_paths["model_patches"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "model_patches", roots)
    assert "talk/InfiniteTalk_Single_Q8.gguf" in files.infinitetalk_weights()
    assert files.infinitetalk_path("talk/InfiniteTalk_Single_Q8.gguf") == patches / "InfiniteTalk_Single_Q8.gguf"
    assert "talk/InfiniteTalk_Single_Q8.gguf" in files.uni3c_files()
    assert not any(name.endswith((".txt", ".gguf")) for name in files.audio_encoders())
