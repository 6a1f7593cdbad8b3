"""Statistics that are kept up to date are those of all numbers so far."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.mapping.sorted_values import SortedValues


def test_median_and_largest_are_those_of_all_numbers_but_zero() -> None:
    values, numbers = SortedValues(), np.random.default_rng(0).uniform(0.5, 4.0, 25).round(1)
    numbers[::7] = 0.0
    assert (values.median, values.largest) == (0.0, 0.0)
    for count, number in enumerate(numbers.tolist(), 1):
        values.add(number)
        known = numbers[:count][numbers[:count] > 0]
        expected = (np.median(known), known.max()) if len(known) else (0.0, 0.0)
        assert (values.median, values.largest) == expected
