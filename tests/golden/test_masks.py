"""Golden case `masks`, its speaker masks: where each speaker is, on the latent grid."""

from __future__ import annotations

import pytest
import torch
from reference_models import boxes

from infinitetalk_core import speakers
from infinitetalk_core.errors import InputError
from infinitetalk_core.speakers import _paint_all, _to_latents, speaker_masks, token_masks


def test_speaker_masks_are_the_references(golden, monkeypatch):
    """Where the reference leaves a speaker without a token (and then divides by zero), ours refuses."""
    case = golden("masks")
    for row in case.config["speaker_masks"]:
        want = case[f"outputs/speaker_masks/{row['id']}"]
        monkeypatch.setattr(speakers, "FACE_SCALE", row["face_scale"])
        height, width = (8 * n for n in row["target_latent_hw"])
        arguments = (row["speakers"], boxes(row), tuple(row["src_hw"]), (height, width))
        if (token_masks(want).sum(dim=1) == 0).any():
            with pytest.raises(InputError):
                speaker_masks(*arguments)
            continue
        got = speaker_masks(*arguments)
        if row["speakers"] == 1:  # three equal rows there; ours are the speaker's and the background's
            assert (want == want[0]).all()
            want = want[:2]
        assert torch.equal(got, want), row


def test_masks_that_leave_a_speaker_without_token_are_the_references_too(golden, monkeypatch):
    case = golden("masks")
    for row in case.config["speaker_masks"]:
        if row["speakers"] == 1:
            continue
        monkeypatch.setattr(speakers, "FACE_SCALE", row["face_scale"])
        size = tuple(8 * n for n in row["target_latent_hw"])
        people = _paint_all(row["speakers"], boxes(row), tuple(row["src_hw"]))
        assert torch.equal(_to_latents(people, size), case[f"outputs/speaker_masks/{row['id']}"]), row
