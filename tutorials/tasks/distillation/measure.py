"""The page of the errors that `train` found. In `tutorials`:

python -m tasks.distillation.measure tasks/distillation/errors.csv --out tasks/distillation/results.md
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from captum_sgcampp.metrics import holm, sign_flip_test
from captum_sgcampp.storage.atomic import written_whole
from tasks.distillation.network import TRAINING_DIGITS
from tasks.distillation.train import FIRST_TUNING_SEED, PAPER_WEIGHT, TUNED, WEIGHTS, read
from tasks.measuring import markdown, with_interval

PAPER = {  # table 4: a student of CIFAR-10, one run each
    "teacher": "5.8",
    "cross-entropy": "6.78",
    "+ Grad-CAM, paper's weight": "6.86",
    "+ Grad-CAM++, paper's weight": "6.74",
    "+ L_KD": "5.68",
    "+ L_KD + Grad-CAM": "5.8",
    "+ L_KD + Grad-CAM++": "5.56",
}


def reference(name: str) -> str | None:
    """The loss without maps, or without the teacher, that a loss is compared with."""
    if name in ("seed", "teacher", "cross-entropy"):
        return None
    return "+ L_KD" if name.startswith("+ L_KD + ") else "cross-entropy"


def comparisons(errors: Mapping[str, Sequence[float]]) -> dict[str, tuple[torch.Tensor, float]]:
    """Differences of the errors in the same seeds, and the p-value of each (sign flips), corrected for their number."""
    pairs = {name: reference(name) for name in errors}
    differences = {
        name: torch.tensor(errors[name], dtype=torch.float64) - torch.tensor(errors[other], dtype=torch.float64)
        for name, other in pairs.items()
        if other is not None
    }
    corrected = holm([sign_flip_test(difference) for difference in differences.values()])
    return dict(zip(differences, zip(differences.values(), corrected, strict=True), strict=True))


def page(errors: Mapping[str, Sequence[float]]) -> str:
    """The table beside the paper's table 4."""
    compared, rows = comparisons(errors), []
    for name, values in errors.items():
        if name == "seed":
            continue
        difference, p = compared.get(name, (None, None))
        rows.append(
            [
                name,
                with_interval(values),
                "-" if difference is None else with_interval(difference.tolist()),
                "-" if p is None else f"{p:.2g}",
                PAPER.get(name, "-"),
            ]
        )
    heads = ["loss of the student", "test error %", "difference in the same seed", "p (Holm)", "paper's error %"]
    return (
        f"# Distillation: {len(errors['seed'])} seeds, {TRAINING_DIGITS} digits to learn from\n\n"
        f"{markdown(heads, rows)}\n\n{_notes()}"
    )


def _notes() -> str:
    """What the table does not say."""
    weights = ", ".join(f"{weight:g} for {method}" for method, weight in TUNED.items())
    return (
        "In brackets: 95 % bootstrap intervals over the seeds. Differences are from cross-entropy, those of the last "
        "two rows from L_KD.\n"
        f"The paper's weight of the maps is {PAPER_WEIGHT:g}. The others had the lowest mean error of {WEIGHTS[0]:g} "
        f"to {WEIGHTS[-1]:g}, without L_KD, on three seeds from {FIRST_TUNING_SEED} on, which are not in the table: "
        f"{weights}.\n"
        "All seeds, these three too, split the same 1,797 digits. So their test errors are not independent, and the "
        "intervals tell of other splits and first weights, not of other digits.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the page, and perhaps write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("errors", type=Path, help="what train wrote")
    parser.add_argument("--out", type=Path, help="file to write")
    chosen = parser.parse_args(argv)
    found = page(read(chosen.errors))
    print(found)
    if chosen.out:
        with written_whole(chosen.out) as unfinished:
            unfinished.write_text(found)


if __name__ == "__main__":
    main()
