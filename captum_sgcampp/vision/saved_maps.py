"""Maps as files: `.npy` for the values, and a manifest that says what each of them is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_sgcampp._version import __version__
from captum_sgcampp.storage.atomic import written_whole
from captum_sgcampp.vision.classifiers import Classifier
from captum_sgcampp.vision.explained_classes import Results, Subject
from captum_sgcampp.vision.identity import weights_digest
from captum_sgcampp.vision.methods import Noise
from captum_sgcampp.vision.recording_pictures import save_nifti
from captum_sgcampp.vision.recordings import Recording

MANIFEST = "manifest.json"
LONGEST_NAME = 100  # bytes
_REFUSED = set('/\\:*?"<>|')  # by one of the usual file systems


class MapFolder:
    """Every map as a `.npy` file, named by picture, class, method and layer, and a manifest of them all.

    Args:
        folder: made where it is missing. Files of the same names are replaced.
        classifier: that is explained.
        noise: of Smooth Grad-CAM++.
        selection: what the maps are restricted to, as the manifest tells it.
    """

    def __init__(
        self, folder: Path, classifier: Classifier, noise: Noise, selection: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.count = folder, 0
        self._classifier, self._noise = classifier, noise
        self._selection = dict(selection or {})
        self._entries: list[dict[str, Any]] = []

    def add(self, subject: Subject, row: Results) -> None:
        """Write the maps of one subject. Those of a NIfTI volume are written as NIfTI, too.

        Args:
            subject: what was explained.
            row: its maps.

        Raises:
            OSError: a file cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for (method, layer), one in row.items():
            values = one.maps[0].squeeze(0).cpu().numpy()  # guided maps have channels
            stem = f"{self.count:02d}_{Path(subject.name).stem}_{subject.target}_{method}_{layer}"
            name = file_name(stem, ".npy")
            with written_whole(self.folder / name) as unfinished:
                np.save(unfinished, values)
            if isinstance(subject.shown, Recording) and subject.shown.affine is not None:
                save_nifti(self.folder / file_name(stem, ".nii.gz"), values, subject.shown)
            self._entries.append(
                {
                    "file": name,
                    "image": subject.name,
                    "target": subject.target,
                    "class": self._classifier.classes[subject.target],
                    "method": method,
                    "layer": layer,
                    "nt_samples": one.nt_samples,
                    "shape": list(values.shape),
                    "device": str(subject.inputs.device),
                }
            )
        self.count += 1

    def finish(self) -> int:
        """Write the manifest. Returns the number of maps."""
        manifest = {**_circumstances(self._classifier, self._noise), **self._selection, "maps": self._entries}
        with written_whole(self.folder / MANIFEST) as unfinished:
            unfinished.write_text(json.dumps(manifest, indent=2) + "\n", encoding="ascii")
        return len(self._entries)


def file_name(stem: str, suffix: str) -> str:
    """A name of at most `LONGEST_NAME` bytes that every file system takes.

    A shortened name ends in a digest, so that different stems keep different names.
    """
    safe = "".join("_" if sign in _REFUSED or not sign.isprintable() else sign for sign in stem).replace(" ", "-")
    if len(f"{safe}{suffix}".encode()) <= LONGEST_NAME:
        return f"{safe}{suffix}"
    end = f"_{hashlib.sha256(stem.encode(errors='surrogatepass')).hexdigest()[:8]}{suffix}"
    return safe.encode()[: LONGEST_NAME - len(end)].decode(errors="ignore") + end


def _circumstances(classifier: Classifier, noise: Noise) -> dict[str, Any]:
    """What all maps have in common."""
    return {
        "model": classifier.name,
        "weights": weights_digest(classifier.model),
        "nt_samples": noise.nt_samples,
        "noise_level": noise.noise_level,
        "seed": noise.seed,
        "versions": {"captum_sgcampp": __version__, "captum": version("captum"), "torch": torch.__version__},
    }
