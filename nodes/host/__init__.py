"""The only place that knows ComfyUI's internals: model patching, sampling, devices, folders, progress."""
