"""One threshold search over 2048 bins."""

import numpy as np

import lowbit


def test_entropy_search(rng, timed):
    counts = np.histogram(np.abs(rng.standard_normal(200_000)), 2048)[0].astype(np.int64)
    timed(lambda: lowbit._core.entropy_search(counts))
