"""What tells one model from another."""

from __future__ import annotations

import hashlib

import torch

from captum_sgcampp._version import __version__
from captum_sgcampp.vision.classifiers import Classifier


def model_identity(classifier: Classifier, device: torch.device) -> dict[str, str]:
    """Digests and versions that must not change within a run."""
    digest = hashlib.sha256()
    for name, tensor in classifier.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).float().numpy().tobytes())
    return {
        "weights": digest.hexdigest()[:16],
        "version": __version__,
        "torch": torch.__version__,
        "device": str(device),
    }
