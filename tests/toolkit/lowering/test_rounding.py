"""Error diffusion: by hand, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from gascnn.toolkit.lowering.rounding import diffused


def test_by_hand():
    """0.9, 0.9, 0.9 with step 2: 0, then 1.8 is 2, then 0.7 is 0."""
    assert diffused(np.array([[0.9, 0.9, 0.9]]), 2).tolist() == [[0, 2, 0]]
    assert diffused(np.array([[3.0, -1.2, 0.0, 5.0]]), 1).tolist() == [[3, -1, 0, 5]]
    assert diffused(np.array([[0.6, 0.0, 0.6]]), 1).tolist() == [[1, 0, 0]], "zeros stay zero"


def test_a_kernel_is_followed_back_and_forth():
    kernel = np.array([[[[0.4, 0.0], [0.0, 0.4]], [[0.0, 0.0], [0.4, 0.0]]]])
    assert diffused(kernel, 1).tolist() == [[[[0, 0], [0, 1]], [[0, 0], [0, 0]]]]


@pytest.mark.parametrize("step", [1, 2])
def test_sums_along_a_row_stay_within_half_a_step(step):
    weight = np.random.default_rng(step).normal(0, 9, (5, 40))
    rounded = diffused(weight, step)
    assert not np.any(rounded % step)
    assert np.abs(np.cumsum(rounded - weight, axis=1)).max() <= step / 2 + 1e-9
    assert np.abs(rounded - weight).max() <= step + 1e-9


def test_smooth_input_loses_less_than_by_rounding_to_the_nearest():
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 6, (50, 16, 3, 3))
    smooth = rng.random((200, 1, 1, 1)) + 0.1 * rng.random((200, 16, 3, 3))
    lost = [
        np.square(np.einsum("ocij,ncij->no", rounded - weight, smooth)).mean()
        for rounded in (2 * np.rint(weight / 2), diffused(weight, 2))
    ]
    assert lost[1] < 0.05 * lost[0]


def test_the_range_is_kept_and_what_it_cuts_off_is_handed_on():
    assert diffused(np.array([[300.0, 10.0]]), 2).tolist() == [[254, 56]]
    assert diffused(np.array([[-300.0, 10.0]]), 2).tolist() == [[-256, -34]]
    assert diffused(np.array([[300.0]]), 1, -1000, 1000).tolist() == [[300]]
