"""A real network for visual question answering, whose convolutions have no activation."""
