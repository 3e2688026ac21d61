"""Questions about scenes: a convolutional network that a question steers."""
