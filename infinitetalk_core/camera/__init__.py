"""Camera paths around a still picture: the path, its rendered frames, and the camera embedding for Uni3C."""
