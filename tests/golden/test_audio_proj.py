"""Speech windows and audio tokens equal the reference's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from reference_models import build_dit

from infinitetalk_core.audio.windows import speech_windows
from infinitetalk_core.model.audio_adapter import split_windows


@torch.inference_mode()
def test_windows_and_tokens(golden, assert_close):
    case = golden("audio_proj")
    _, adapter = build_dit(case.config, case.weights)
    window = case.config["audio_window"]
    for row in case.config["cases"]:
        # The case clamps at the end of the speech; the product mirrors there (golden case audio_window).
        held = (0, 0, 0, 0, 0, row["audio_end"] + window // 2)
        voices = [F.pad(v[None], held, mode="replicate")[0] for v in case.under(f"inputs/{row['id']}").values()]
        want = case.under(f"outputs/{row['id']}")
        windows = speech_windows(voices, row["audio_start"], row["audio_end"] - row["audio_start"], window)
        assert torch.equal(windows, want["audio_windows"])
        first, late = split_windows(windows)
        assert torch.equal(first, want["first"])
        assert torch.equal(late, want["latter"])
        assert_close(adapter.audio_proj(windows), want["tokens"], case.tolerance("tokens"), f"case {row['id']}")
