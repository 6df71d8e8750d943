"""Noise schedule, guidance, SDEdit, step caching and Euler sampling for flow matching."""
