"""Seeds of images and scenes; what is explained in a folder and in scenes."""

from __future__ import annotations

import pytest
import torch

from captum_sgcampp.evaluation.cases import evaluation_seeds, image_seed, scene_cases
from captum_sgcampp.vision.classifiers import load_classifier


def test_the_seed_of_an_image_comes_from_its_name_the_purpose_and_the_runs_seed() -> None:
    seeds = [
        image_seed(*parts) for parts in ((0, "a", "noise"), (0, "b", "noise"), (0, "a", "grid"), (1, "a", "noise"))
    ]
    assert len(set(seeds)) == 4 and image_seed(0, "a", "noise") == seeds[0] and max(seeds) < 2**63


@pytest.mark.parametrize("seed, count", [(-1, 5), (0, 0), (0, 1_000_001)])
def test_refuses_seeds_that_it_does_not_have(seed: int, count: int) -> None:
    with pytest.raises(ValueError, match="seed must be 0 or larger"):
        evaluation_seeds(seed, count)


def test_scenes_have_the_masks_and_boxes_of_the_class_that_is_explained() -> None:
    cases = scene_cases(load_classifier(), 3, 0, torch.device("cpu"))
    assert len(cases.names) == 3 and cases.kind == "3 scenes" and cases.mask_digest() is None
    case = cases.load(1)
    assert case.target == cases.targets[1] and case.inputs.shape == (1, 3, 128, 128)
    assert case.regions is not None and case.boxes is not None and case.instances is not None
    assert torch.equal(case.instances.any(0), case.regions[0])
    assert (case.boxes | ~case.regions).all() and case.boxes.sum() > case.regions.sum()


def test_the_digest_tells_other_scenes_apart() -> None:
    one, again, other = (scene_cases(load_classifier(), 2, seed, torch.device("cpu")).digest() for seed in (0, 0, 1))
    assert one == again != other
