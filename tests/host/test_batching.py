"""The guidance branches of a step are one batch where memory allows, and make the same video where it does not."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comparing import relative
from test_equality import load_model, make_backend, make_conditioning


def batches_of(model) -> list[int]:
    """Grows with the batch size of every prediction of `model`."""
    seen: list[int] = []

    def watch(executor, x, *args, **kwargs):
        seen.append(len(x))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    return seen


@pytest.mark.parametrize("speakers", [1, 2])
@pytest.mark.parametrize(("text", "audio", "branches"), [(1, 1, 1), (1, 2, 2), (5, 1, 2), (5, 4, 3)])
@torch.inference_mode()
def test_all_branches_come_in_one_batch_or_one_by_one(core, files, own, monkeypatch, speakers, text, audio, branches):
    c, guidance = make_conditioning(core, own, speakers), core.guidance.Guidance(text, audio)
    model = load_model(core, files)
    seen = batches_of(model)
    together = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
    assert seen == [branches] * 3
    seen.clear()
    monkeypatch.setattr(model.model, "memory_required", lambda *a, **k: 1e18)
    alone = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
    assert seen == [1] * branches * 3
    assert relative(alone, together) < 5e-5


@torch.inference_mode()
def test_speech_is_projected_once_a_chunk_and_not_kept_after_it(core, files, own, monkeypatch):
    """Once what is said and once silence, however many steps and branches there are."""
    made = []
    project = core.audio.AudioAdapter.speech_tokens

    def watched(*args):
        tokens = project(*args)
        made.append(weakref.ref(tokens.tokens))
        return tokens

    monkeypatch.setattr(core.audio.AudioAdapter, "speech_tokens", watched)
    c = make_conditioning(core, own)
    make_backend(core, load_model(core, files), core.guidance.Guidance(5, 4), steps=5).denoise(c, lambda s, x: None)
    assert len(made) == 2
    gc.collect()
    assert [ref() for ref in made] == [None, None]
