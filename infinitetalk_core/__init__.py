"""The engine: InfiniteTalk in PyTorch, without ComfyUI."""
