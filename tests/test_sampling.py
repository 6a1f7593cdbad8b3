"""Even subsets keep their ends and their limit."""

from __future__ import annotations

from ovs3d_ros.sampling import evenly_spaced_indices


def test_more_than_the_limit_keeps_the_ends_and_the_limit():
    indices = evenly_spaced_indices(1000, 10)
    assert indices.tolist()[::9] == [0, 999] and len(set(indices.tolist())) == 10
    assert evenly_spaced_indices(8, 3).tolist() == [0, 4, 7]
    assert evenly_spaced_indices(1000, 1).tolist() == [0]


def test_fewer_than_the_limit_are_all_chosen():
    assert evenly_spaced_indices(0, 3).tolist() == []
    assert evenly_spaced_indices(2, 5).tolist() == [0, 1]
    assert evenly_spaced_indices(5, 5).tolist() == [0, 1, 2, 3, 4]
