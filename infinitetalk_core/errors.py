"""Errors that speak to the person at the graph."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, its value, and what to do next."""
