"""Maps as files: `.npy` for the values, and a manifest that says what each of them is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_sgcampp._version import __version__
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.explanations import Noise, Results, Subject
from captum_sgcampp.vision.weights_files import weights_digest

MANIFEST = "manifest.json"
LONGEST_NAME = 100  # bytes
_REFUSED = set('/\\:*?"<>|')  # by one of the usual file systems


def save_maps(
    folder: Path, classifier: Classifier, noise: Noise, subjects: Sequence[Subject], rows: Sequence[Results]
) -> None:
    """Every map as a `.npy` file, named by picture, class, method and layer, and a manifest of them all.

    Args:
        folder: made where it is missing. Files of the same names are replaced.
        classifier: that was explained.
        noise: of Smooth Grad-CAM++.
        subjects: what was explained.
        rows: the maps of each subject.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for number, (subject, row) in enumerate(zip(subjects, rows, strict=True)):
        for (method, layer), one in row.items():
            values = one.maps[0, 0].cpu().numpy()
            name = file_name(f"{number:02d}_{Path(subject.name).stem}_{subject.target}_{method}_{layer}", ".npy")
            with written_whole(folder / name) as unfinished:
                np.save(unfinished, values)
            entries.append(
                {
                    "file": name,
                    "image": subject.name,
                    "target": subject.target,
                    "class": classifier.classes[subject.target],
                    "method": method,
                    "layer": layer,
                    "nt_samples": one.nt_samples,
                    "shape": list(values.shape),
                }
            )
    manifest = {**_circumstances(classifier, noise, subjects), "maps": entries}
    with written_whole(folder / MANIFEST) as unfinished:
        unfinished.write_text(json.dumps(manifest, indent=2) + "\n", encoding="ascii")


def file_name(stem: str, suffix: str) -> str:
    """A name of at most `LONGEST_NAME` bytes that every file system takes.

    A shortened name ends in a digest, so that different stems keep different names.
    """
    safe = "".join("_" if sign in _REFUSED or not sign.isprintable() else sign for sign in stem).replace(" ", "-")
    if len(f"{safe}{suffix}".encode()) <= LONGEST_NAME:
        return f"{safe}{suffix}"
    end = f"_{hashlib.sha256(stem.encode(errors='surrogatepass')).hexdigest()[:8]}{suffix}"
    return safe.encode()[: LONGEST_NAME - len(end)].decode(errors="ignore") + end


def _circumstances(classifier: Classifier, noise: Noise, subjects: Sequence[Subject]) -> dict[str, Any]:
    """What all maps have in common."""
    return {
        "model": classifier.name,
        "weights": weights_digest(classifier.model),
        "nt_samples": noise.nt_samples,
        "noise_level": noise.noise_level,
        "seed": noise.seed,
        "device": str(subjects[0].inputs.device),
        "versions": {"captum_sgcampp": __version__, "captum": version("captum"), "torch": torch.__version__},
    }
