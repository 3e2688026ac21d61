"""Small networks that caption scenes, answer questions about them, find their shapes and name actions in clips."""
