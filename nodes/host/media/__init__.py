"""ComfyUI's AUDIO, VIDEO and IMAGE to the engine's types and back."""
