"""All code that uses ComfyUI's internals: model patching, sampling, devices, folders, progress."""
