"""Text for models that are trained without a text encoder: a word is a fixed random vector.

umt5, the text encoder of Wan, weighs 11 GB and has no small version that ComfyUI loads. So that the text branch of
guidance is trained all the same, captions of one word stand for it; no text is a row of zeros, as ComfyUI pads.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

CALM = "calm"
LIVELY = "lively"
TOKENS = 2


def caption_tokens(words: str, width: int = 4096) -> Tensor:
    """Text conditioning (TOKENS, width) of up to TOKENS words; zeros where there is no word."""
    tokens = torch.zeros(TOKENS, width)
    for i, word in enumerate(words.split()[:TOKENS]):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:7], "little")
        tokens[i] = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return tokens
