"""The audio adapter, the audio-conditioned Wan block and a small Wan backbone."""
