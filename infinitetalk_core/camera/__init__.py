"""A camera that moves through a still picture: its path, what it sees, and what Uni3C is told about it."""
