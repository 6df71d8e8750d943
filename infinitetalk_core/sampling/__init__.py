"""Schedule, guidance and Euler steps of flow matching."""
