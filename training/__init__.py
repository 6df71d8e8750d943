"""Train every model by the method of the paper, and draw the speakers that the small models are trained on."""
