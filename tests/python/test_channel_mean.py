"""Channel means: exact under any dealing of samples, and what their state may be."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit import FormatError
from lowbit.calibration.channel_mean import ChannelMean


def seen(*arrays):
    found = ChannelMean()
    for x in arrays:
        found.observe(x)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.booleans(), st.integers(0, 2**31), st.data())
def test_any_dealing_gives_the_same(n, c, image, seed, data):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, c, 3, 2) if image else (n, c)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    whole = seen(x)
    dealt = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    order = data.draw(st.permutations(range(3)))
    parts = [seen(*(x[i : i + 1] for i in range(n) if dealt[i] == part)) for part in order]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.state_dict() == whole.state_dict()
    np.testing.assert_allclose(
        whole.mean(), x.astype(np.float64).mean(axis=(0, 2, 3) if image else 0), atol=2e-7, rtol=1e-6
    )
    again = ChannelMean.from_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert again.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "x", [np.zeros((2, 3, 4), np.float32), np.full((2, 3), 1e9, np.float32)], ids=["rank", "large"]
)
def test_what_has_no_mean_never_gets_one(x):
    fine = np.ones((2, 3), np.float32)
    for found in (seen(x), seen(fine, x), seen(x, fine), seen(fine).merge(seen(x)), seen(x).merge(seen(fine))):
        assert found.mean() is None and ChannelMean.from_state_dict(found.state_dict()).state_dict() == {
            "count": 0,
            "lost": True,
        }
    assert seen(fine, np.ones((1, 4), np.float32)).mean() is None  # channels differ
    assert seen().mean() is None and seen(np.zeros((0, 3), np.float32)).mean() is None


@pytest.mark.parametrize(
    "change",
    [{"count": -1}, {"count": True}, {"count": 1 << 30}, {"channels": 0}, {"channels": 4}, {"channels": 1 << 40},
     {"sums": "%"}, {"sums": 3}, {"sums": "AAAA"}, {"count": "2"}],
    ids=str,
)  # fmt: skip
def test_damaged_states_are_refused(change):
    state = seen(np.ones((2, 3), np.float32)).state_dict() | change
    with pytest.raises(FormatError, match="channel means"):
        ChannelMean.from_state_dict(state)
    with pytest.raises(FormatError, match="channel means"):
        ChannelMean.from_state_dict([1])
