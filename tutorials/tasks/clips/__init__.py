"""Actions in clips: a small C3D."""
