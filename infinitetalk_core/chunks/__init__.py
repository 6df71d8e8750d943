"""The plan of chunks, their conditioning, and the loop that generates them."""
