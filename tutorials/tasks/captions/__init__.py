"""Sentences about scenes: a convolutional network and an LSTM."""
