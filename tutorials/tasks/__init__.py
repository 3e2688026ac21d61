"""Three small networks that caption scenes, answer questions about them and name actions in clips."""
