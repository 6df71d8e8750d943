"""The one rate of everything that is counted in frames: the model was trained at it."""

FRAMES_PER_SECOND = 25
