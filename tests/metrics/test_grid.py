"""Mosaics and what is read from them."""

from __future__ import annotations

import pytest
import torch

from captum_sgcampp.metrics import (
    cell_masks,
    instance_balance,
    instance_recall,
    instance_shares,
    mosaics,
    sample_mosaics,
)


def test_tiles_lie_in_their_cells() -> None:
    tiles = torch.rand(2, 4, 3, 5, 6)
    mosaic, cells = mosaics(tiles), cell_masks((10, 12))
    assert mosaic.shape == (2, 3, 10, 12)
    for number in range(4):
        assert torch.equal(mosaic[:, :, cells[number]].reshape(2, 3, 5, 6), tiles[:, number])
    assert (cells.sum(0) == 1).all()


def test_a_perfect_map_scores_one_and_a_random_map_a_quarter() -> None:
    cells = cell_masks((64, 64))
    assert instance_shares(cells.float(), cells).tolist() == torch.eye(4).tolist()
    chance = instance_shares(torch.rand(1, 64, 64), cells)
    assert torch.allclose(chance, torch.full((1, 4), 0.25), atol=0.02)


def test_two_instances() -> None:
    cells = cell_masks((4, 4))
    maps = (cells[0].float() + 0.5 * cells[3].float() - cells[1].float())[None]
    assert instance_shares(maps, cells)[0].tolist() == pytest.approx([2 / 3, 0, 0, 1 / 3])
    assert instance_balance(maps, cells[[0, 3]]).item() == pytest.approx(0.5)
    assert instance_balance(torch.zeros(1, 4, 4), cells[[0, 3]]).item() == 0


def test_recall_counts_the_instances_whose_maximum_exceeds_half_of_the_maps() -> None:
    cells = cell_masks((4, 4))
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 0], maps[0, 0, 3], maps[0, 3, 0], maps[0, 3, 3] = 2.0, 1.0, 1.01, -5.0
    assert instance_recall(maps, cells).tolist() == [0.5, 0]
    assert instance_recall(maps, cells, threshold=0.4).tolist() == [0.75, 0]
    maps[0, 1, 2] = 8.0  # the whole map's maximum counts, also outside the instances
    assert instance_recall(maps[:1], cells[[0, 2, 3]]).tolist() == [0]
    assert instance_recall(torch.ones(1, 4, 4), cells).tolist() == [1]


def test_partners_are_of_three_other_classes() -> None:
    targets = [1, 1, 2, 3, 4, 4, 5]
    for index, partners in enumerate(sample_mosaics(targets, torch.Generator().manual_seed(3))):
        assert partners is not None
        assert len({targets[index], *(targets[partner] for partner in partners)}) == 4
    assert sample_mosaics([1, 2, 3, 3]) == [None] * 4
    first, again = (sample_mosaics(targets, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == again


def test_partners_are_as_often_as_in_a_random_order_of_all_images() -> None:
    targets = [0, 1, 1, 1, 2, 2, 3, 4]
    counts, rounds = torch.zeros(8), 4000
    generator = torch.Generator().manual_seed(0)
    for _ in range(rounds):
        partners = sample_mosaics(targets, generator)[0]
        assert partners is not None
        counts[list(partners)] += 1
    expected = torch.zeros(8)
    for _ in range(rounds):  # the first image of each class in a random order, until there are three
        seen: dict[int, int] = {}
        for other in torch.randperm(8, generator=generator).tolist():
            if targets[other] != 0 and len(seen) < 3:
                seen.setdefault(targets[other], other)
        expected[list(seen.values())] += 1
    assert counts[0] == 0
    assert torch.allclose(counts, expected, atol=5 * rounds**0.5 * 0.5 * 2**0.5)


def test_many_images_are_paired_at_once_also_where_one_class_has_nearly_all() -> None:
    """The operations of torch, one per image, took 14 s for 20,000 images."""
    targets = [7] * 19_997 + [1, 2, 3]
    with torch.profiler.profile() as profile:
        partners = sample_mosaics(targets, torch.Generator().manual_seed(0))
    assert sum(event.count for event in profile.key_averages()) < 20
    assert sorted(partners[0] or ()) == [19_997, 19_998, 19_999] and None not in partners


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^tiles: expected"):
        mosaics(torch.rand(2, 3, 3, 5, 6))
    with pytest.raises(ValueError, match=r"^threshold: expected"):
        instance_recall(torch.rand(1, 4, 4), cell_masks((4, 4)), threshold=1)
    with pytest.raises(ValueError, match=r"^instances: expected bool"):
        instance_recall(torch.rand(1, 4, 4), cell_masks((4, 6)))
    with pytest.raises(ValueError, match=r"^size: expected even"):
        cell_masks((5, 4))
