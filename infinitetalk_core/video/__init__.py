"""Source frames by time, finished frames to disk."""
