"""Training of every model by the method of the paper, and the drawn speakers that the small models learn from."""
