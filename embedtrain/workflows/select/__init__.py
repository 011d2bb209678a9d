"""Choose the weights to ship: the start, the best or last checkpoint, their mean, or a point between."""
