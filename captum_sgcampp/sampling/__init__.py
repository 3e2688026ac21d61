"""The loop: noisy rows, forward pass, gradients of the score, moments."""
