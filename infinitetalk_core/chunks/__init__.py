"""The plan of chunks, what each is conditioned on, and the run that makes them."""
