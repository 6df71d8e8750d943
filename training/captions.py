"""Provide text embeddings for models that are trained without a text encoder: each word is a fixed random vector.

umt5, the text encoder of Wan, has 11 GB and no small version that ComfyUI loads. One-word captions replace it, so that
the text branch of guidance is trained nevertheless. An empty text is all zeros, as ComfyUI pads texts.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

CALM = "calm"
LIVELY = "lively"
TOKENS = 2


@lru_cache(8)
def caption_tokens(words: str, width: int = 4096) -> Tensor:
    """Return the text embeddings (TOKENS, width) of up to TOKENS words; rows without a word are zeros."""
    tokens = torch.zeros(TOKENS, width)
    for i, word in enumerate(words.split()[:TOKENS]):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:7], "little")
        tokens[i] = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return tokens
