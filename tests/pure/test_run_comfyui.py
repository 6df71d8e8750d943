"""The launcher of the demo and test servers: a VAE in bfloat16 exactly where the CPU has instructions for it."""

from __future__ import annotations

import pytest
import torch

from tools import run_comfyui

ABLE = {"_is_avx512_bf16_supported": True, "_is_amx_tile_supported": False}
AMX = {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": True}
UNABLE = {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": False}
OLD_PYTORCH = dict.fromkeys(UNABLE)  # without the questions


@pytest.mark.parametrize(
    ("cpu", "arguments", "want"),
    [
        (ABLE, ["--port", "1", "--cpu"], ["--port", "1", "--cpu", "--bf16-vae"]),
        (AMX, ["--cpu"], ["--cpu", "--bf16-vae"]),
        (UNABLE, ["--cpu"], ["--cpu"]),
        (OLD_PYTORCH, ["--cpu"], ["--cpu"]),
        (ABLE, ["--port", "1"], ["--port", "1"]),  # a GPU chooses for itself
        (ABLE, ["--cpu", "--fp32-vae"], ["--cpu", "--fp32-vae"]),
        (ABLE, ["--cpu", "--bf16-vae"], ["--cpu", "--bf16-vae"]),
    ],
)
def test_the_type_of_the_vae(monkeypatch, cpu, arguments, want):
    for name, answer in cpu.items():
        if answer is None:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    assert run_comfyui.with_vae_type(arguments) == want
