"""A network that finds the shapes of a scene, and its boxes."""
