"""Checkpoint files: detect what a file contains, read its tensors, dequantize them."""
