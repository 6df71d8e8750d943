"""The frame rate the model was trained at; all frame counts and indices use it."""

FRAMES_PER_SECOND = 25
