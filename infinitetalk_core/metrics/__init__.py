"""Numbers that say how well a run holds together."""
