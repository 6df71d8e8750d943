"""Resumable runs: finished chunks are stored on disk, and a repeated run continues after them."""
