"""A small network that learns digits from a larger one, and from where that one looks (Grad-CAM++, section 5)."""
