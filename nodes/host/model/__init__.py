"""The MODEL: loading our weights onto it, and the wrappers that ComfyUI calls."""
