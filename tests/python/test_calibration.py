"""Histograms and observers: counts from the definition, every level, sharding, ranges, odd tensors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit import EntropyObserver, FormatError, MinMaxObserver, MSEObserver, PercentileObserver, _core
from lowbit.calibration import METHODS, Histogram, make_observer
from lowbit.calibration.observers import observer_from_state

OBSERVERS = [EntropyObserver, MinMaxObserver, PercentileObserver, MSEObserver]
SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 255, 1023, 1025, 2047, 2048, 2049, 2065, 5000]


def reference_counts(x: np.ndarray, bins: int) -> tuple[np.ndarray, int]:
    x = x.astype(np.float64)
    top = np.abs(x).max()
    exponent = max(math.frexp(top)[1] - 1 - int(math.log2(bins)), -126) if top else -126
    counts = np.zeros((2, 2 * bins), np.int64)
    np.add.at(counts, ((x < 0).astype(int), np.floor(np.abs(x) * 2.0**-exponent).astype(int)), 1)
    return counts, exponent


def same(a: Histogram, b: Histogram) -> bool:
    fields = [(h.exponent, h.count, h.lo, h.hi, h.counts.tobytes()) for h in (a, b)]
    return fields[0] == fields[1]


def data(kind: str, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n).astype(np.float32)
    if kind == "relu6":
        return np.clip(x * 4, 0, 6)
    if kind == "negative":
        return -np.abs(x)
    if kind == "edges":  # the ends of bins, both zeros, the largest and the smallest floats of a range
        pool = np.float32([0.0, -0.0, 1.0, -1.0, 1.5, 2047 / 1024, -2047 / 1024, 2**-10, -(2**-10), 1e-30, -1e-45])
        return rng.choice(pool, n)
    return x


# Histograms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "relu6", "negative", "edges"])
@pytest.mark.parametrize("isa", lowbit.isas())
def test_counts_are_the_definition(isa, kind):
    for n in SIZES:
        x = data(kind, n, n)
        h = Histogram()
        h.observe(x, isa=isa, threads=1)
        counts, exponent = reference_counts(x, 2048)
        assert (h.exponent, h.count, h.lo, h.hi) == (exponent, n, x.min(), x.max())
        np.testing.assert_array_equal(h.counts, counts)


@pytest.mark.parametrize("isa", lowbit.isas())
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(isa, threads):
    x = data("normal", 200_000)
    x *= np.logspace(-8, 3, len(x), dtype=np.float32)  # the range grows inside the call, and more for the last thread
    h = Histogram()
    h.observe(x, isa=isa, threads=threads)
    counts, _ = reference_counts(x, 2048)
    np.testing.assert_array_equal(h.counts, counts)


def test_no_negative_zero():
    h = Histogram()
    h.observe(np.float32([-0.0]))
    assert math.copysign(1, h.lo) == math.copysign(1, h.hi) == 1
    assert h.counts[0, 0] == 1


@pytest.mark.parametrize("bins", [16, 128, 2048, 65536])
def test_bins_in_use(bins):
    for top in [1.0, 1.999999, 6.0, 3.4028235e38, 1e-30, 0.1]:
        h = Histogram(bins)
        h.observe(np.float32([top, top / 3]))
        assert bins < h.used <= 2 * bins
        assert h.magnitudes().sum() == 2 and h.magnitudes()[-1] == 1


def test_denormals_use_fewer_bins():
    h = Histogram()
    h.observe(np.float32([1e-44, 1e-40]))
    assert h.exponent == -126 and h.used == 1 and h.count == 2


@pytest.mark.parametrize("isa", lowbit.isas())
def test_zeros_first_then_growth(isa):
    h = Histogram()
    x = np.zeros(5000, np.float32)
    h.observe(x, isa=isa)
    assert (h.exponent, h.count, h.used) == (-126, 5000, 1)
    rest = [data("normal", 3000, k + 3) * np.float32(10.0**k) for k in range(-3, 4)]
    for r in rest:
        h.observe(r, isa=isa)
    counts, exponent = reference_counts(np.concatenate([x, *rest]), 2048)
    assert h.exponent == exponent
    np.testing.assert_array_equal(h.counts, counts)


floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
batches = st.lists(st.lists(floats | st.floats(-6, 6, width=32), max_size=20), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(batches, st.randoms(use_true_random=False), st.integers(1, 4))
def test_shards_merge_to_the_whole(parts, random, shards):
    arrays = [np.array(p, np.float32) for p in parts]
    whole = Histogram(64)
    for a in arrays:
        whole.observe(a)
    random.shuffle(arrays)
    observers = [EntropyObserver(bins=64) for _ in range(shards)]
    for a in arrays:
        random.choice(observers).observe(a)
    random.shuffle(observers)
    merged = observers[0]
    for o in observers[1:]:
        merged.merge(o)
    assert same(merged.histogram, whole)
    if whole.count:
        counts, exponent = reference_counts(np.concatenate(arrays), 64)
        assert whole.exponent == exponent
        np.testing.assert_array_equal(whole.counts, counts)


def test_merging_leaves_the_other_alone():
    a, b = Histogram(), Histogram()
    a.observe(data("normal", 100) * 50)
    b.observe(data("normal", 100))
    before = b.state_dict()
    a.merge(b)
    assert b.state_dict() == before and a.count == 200


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("isa", lowbit.isas())
@pytest.mark.parametrize("cls", OBSERVERS)
def test_nan_and_infinity_are_named_and_leave_no_trace(cls, isa, bad):
    obs = cls()
    obs.observe(data("normal", 3000))
    before = obs.state_dict()
    for n, at in [(1, 0), (40, 39), (5000, 4999), (5000, 17), (70_000, 69_999)]:
        x = 100 * data("normal", n)
        x[at] = bad
        with pytest.raises(ValueError, match=f"index {at} of {n} is "):
            obs.observe(x, isa=isa)
    assert obs.state_dict() == before


def test_layouts_and_dtypes():
    x = data("normal", 4 * 6 * 50).reshape(4, 6, 50)
    want = Histogram()
    want.observe(x)
    odd = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[:] = x
    for y in (np.asfortranarray(x), x.transpose(2, 0, 1), np.repeat(x, 2, axis=2)[..., ::2], odd, x.astype(">f4")):
        got = Histogram()
        got.observe(y)
        assert same(got, want)
    for y in (x.astype(np.float64), x.astype(np.float16)):
        got = Histogram()
        got.observe(y)
        counts, _ = reference_counts(y.astype(np.float32).ravel(), 2048)
        np.testing.assert_array_equal(got.counts, counts)
    for y in (x.astype(np.int32), x > 0, x.astype(complex), ["a"]):
        with pytest.raises(TypeError, match="dtype"):
            Histogram().observe(y)
    with pytest.raises(ValueError, match="index 0"):
        Histogram().observe(np.array([1e300]))


@pytest.mark.parametrize("bins", [0, 8, 100, 131072, 2.0, None])
def test_bins_are_checked(bins):
    with pytest.raises(ValueError, match="bins"):
        Histogram(bins)


def test_doors_check():
    counts = np.zeros((2, 32), np.int64)
    for shape, exponent, what in [((2, 31), -126, "shape"), ((1, 32), -126, "shape"), ((2, 40), -126, "bins = 20")]:
        with pytest.raises(ValueError, match=what):
            _core.histogram_observe(np.zeros(shape, np.int64), exponent, 0, 0, 0, np.float32([1]))
    for exponent in (-127, 124):
        with pytest.raises(ValueError, match="exponent"):
            _core.histogram_observe(counts, exponent, 0, 0, 0, np.float32([1]))
    with pytest.raises(ValueError, match="exponent"):
        _core.histogram_fold(counts, 0, -1)
    with pytest.raises(ValueError, match="no values"):
        _core.finite_range(np.float32([]))
    with pytest.raises(TypeError):
        _core.histogram_observe(counts.astype(np.int32), 0, 0, 0, 0, np.float32([1]))
    with pytest.raises(TypeError):
        _core.finite_range(np.zeros(3))
    frozen = counts.copy()
    frozen.setflags(write=False)
    with pytest.raises(ValueError):
        _core.histogram_observe(frozen, 0, 0, 0, 0, np.float32([1]))


def test_signed_counts():
    x = np.float32([-1.0, -0.26, 0.0, 0.26, 0.74, 3.9])
    h = Histogram(16)
    h.observe(x)
    counts, first = h.signed()
    places = np.repeat(first + np.arange(len(counts)), counts) * h.width
    assert np.all(np.abs(places + h.width / 2 - np.sort(x)) <= h.width / 2 + 1e-9)


# Observers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", OBSERVERS)
def test_nothing_observed(cls):
    obs = cls()
    obs.observe(np.zeros((0, 3), np.float32))
    assert obs.count == 0
    for ask in (obs.threshold, obs.range, obs.qparams):
        with pytest.raises(ValueError, match="no value was observed"):
            ask()
    assert observer_from_state(obs.state_dict()).count == 0
    seen = cls()
    seen.observe(np.float32([1, 2]))
    assert cls().merge(seen).state_dict() == seen.merge(cls()).state_dict() == seen.state_dict()


@pytest.mark.parametrize("cls", OBSERVERS)
def test_all_zero(cls):
    obs = cls()
    obs.observe(np.zeros(1000, np.float32))
    for dtype, symmetric in [("int8", True), ("uint8", False), ("int8", False)]:
        q = obs.qparams(dtype, symmetric)
        assert q.scale == 1.0
        assert q.zero_point == (-128 if (dtype, symmetric) == ("int8", False) else 0)


@pytest.mark.parametrize("value", [1.0, -3.3, 1e-20, 7e30])
@pytest.mark.parametrize("cls", OBSERVERS)
def test_constant_is_representable(cls, value):
    obs = cls()
    obs.observe(np.full(1000, value, np.float32))
    for dtype, symmetric in [("int8", True), ("uint8", False), ("int8", False)]:
        q = obs.qparams(dtype, symmetric)
        code = q.zero_point + np.rint(np.float32(value) / np.float32(q.scale))
        assert q.qmin <= code <= q.qmax
        assert (code - q.zero_point) * q.scale == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fixed"])
@pytest.mark.parametrize("kind", ["normal", "relu6", "negative"])
def test_ranges_stay_inside_what_was_seen(method, kind):
    x = data(kind, 20_000)
    obs = make_observer(method)
    obs.observe(x)
    lo, hi = obs.range()
    assert min(x.min(), 0) <= lo <= 0 <= hi <= max(x.max(), 0)
    assert 0 < obs.threshold() <= np.abs(x).max() or method == "entropy"


def test_minmax_is_exact():
    x = data("normal", 1234)
    obs = MinMaxObserver()
    for part in np.array_split(x, 7):
        obs.observe(part)
    assert (obs.lo, obs.hi, obs.count) == (x.min(), x.max(), 1234)
    assert obs.threshold() == np.abs(x).max() and obs.range() == (x.min(), x.max())
    assert obs.qparams().scale == np.float32(np.abs(x).max().astype(float) / 127)


@pytest.mark.parametrize("percentile", [50, 90, 99, 99.9, 100])
@pytest.mark.parametrize("kind", ["normal", "relu6", "negative"])
def test_percentile_is_the_count_to_a_bin(kind, percentile):
    x = data(kind, 40_000)
    obs = PercentileObserver(percentile=percentile)
    obs.observe(x)
    width = obs.histogram.width

    def holds(values, t, share):  # t holds that share of the values, give or take a bin and a value
        return np.mean(values < t - width) - 1e-4 <= share <= np.mean(values <= t + width) + 1e-4

    assert holds(np.abs(x), obs.threshold(), percentile / 100)
    tail = (1 - percentile / 100) / 2
    lo, hi = obs.range()
    assert holds(x, hi, 1 - tail) or (hi == 0 and x.max() <= 0)
    assert holds(-x, -lo, 1 - tail) or (lo == 0 and x.min() >= 0)


def test_percentile_is_checked():
    for p in (0, -1, 100.1, math.nan):
        with pytest.raises(ValueError, match="percentile"):
            PercentileObserver(percentile=p)


def rounding_error(x, scale, zero, qmin, qmax):
    q = np.clip(zero + np.rint(x / scale), qmin, qmax)
    return float(np.sum(((q - zero) * scale - x) ** 2))


@pytest.mark.parametrize("kind", ["normal", "heavy", "relu"])
def test_mse_beats_a_plain_search(kind):
    x = data("normal", 20_000).astype(np.float64)
    x = {"normal": x, "heavy": x**3, "relu": np.maximum(x, 0) ** 2}[kind].astype(np.float32)
    obs = MSEObserver()
    obs.observe(x)
    top = float(np.abs(x).max())
    plain = min(rounding_error(x, t / 127, 0, -127, 127) for t in np.linspace(0.02, 1, 99) * top)
    assert rounding_error(x, obs.threshold() / 127, 0, -127, 127) <= 1.005 * plain
    lo, hi = obs.range()

    def affine(lo, hi):
        scale = (hi - lo) / 255
        return rounding_error(x, scale, np.rint(-lo / scale), 0, 255)

    plain = min(affine(x.min() * f, x.max() * g) for f in np.linspace(0.1, 1, 19) for g in np.linspace(0.1, 1, 19))
    assert affine(lo, hi) <= 1.02 * plain


def test_entropy_affine_range():
    x = data("normal", 50_000) ** 3
    obs = EntropyObserver()
    obs.observe(x + 2)
    t = obs.search(128).threshold
    assert obs.range() == (max(obs.lo, -t), min(obs.hi, t))
    one_sided = EntropyObserver()
    one_sided.observe(np.abs(x))
    assert one_sided.range() == (0.0, one_sided.search(256).threshold)


# State -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fixed"])
@pytest.mark.parametrize("kind", ["normal", "edges", "relu6"])
def test_state_round_trip(method, kind):
    obs = make_observer(method)
    obs.observe(data(kind, 3000))
    state = obs.state_dict()
    again = type(obs).from_state_dict(state)
    assert again.state_dict() == state == observer_from_state(state).state_dict()
    for o in (obs, again):
        o.observe(100 * data("normal", 3000, 3))
    assert again.state_dict() == obs.state_dict()


def test_settings_survive_and_must_agree():
    a = PercentileObserver(percentile=99, bins=64)
    a.observe(data("normal", 100))
    b = PercentileObserver.from_state_dict(a.state_dict())
    assert (b.percentile, b.histogram.bins) == (99, 64)
    with pytest.raises(ValueError, match="percentile"):
        a.merge(PercentileObserver(percentile=98, bins=64))
    with pytest.raises(ValueError, match="bins"):
        a.merge(PercentileObserver(percentile=99))
    with pytest.raises(ValueError, match="differ"):
        a.merge(MSEObserver(bins=64))
    assert EntropyObserver.from_state_dict(EntropyObserver(literal_bin0=True).state_dict()).literal_bin0


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fixed"])
def test_broken_states_are_format_errors(method):
    obs = make_observer(method)
    obs.observe(data("normal", 500))
    good = obs.state_dict()
    values = [None, -1, 1.5, "x", [], {}, math.nan, math.inf, 10**400, True, 3, 2**70, "AAAA", "eNoDAAAAAAE="]
    changed = 0
    for key in good:
        for broken in [{k: v for k, v in good.items() if k != key}, *({**good, key: v} for v in values)]:
            try:
                state = observer_from_state(broken).state_dict()
            except FormatError:
                changed += 1
            else:  # a setting, or a bound of min-max, can be another valid one
                assert key in ("literal_bin0", "percentile") or (method == "minmax" and key in ("count", "lo", "hi"))
                assert observer_from_state(state).state_dict() == state
    assert changed > 10
    for state in (None, [], 3, {}, {"method": "best"}, {"method": ["entropy"]}):
        with pytest.raises(FormatError):
            observer_from_state(state)


def test_decompression_stops_at_the_size():
    import base64
    import zlib

    obs = EntropyObserver(bins=16)
    obs.observe(np.float32([1]))
    bomb = base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()
    with pytest.raises(FormatError, match="are not up to"):
        EntropyObserver.from_state_dict({**obs.state_dict(), "positive": bomb})


def test_fixed_observers_hold_a_threshold():
    fixed = lowbit.calibration.FixedObserver(12.7)
    assert fixed.threshold() == 12.7 and fixed.range() == (-12.7, 12.7)
    assert observer_from_state(fixed.state_dict()).threshold() == 12.7
    with pytest.raises(ValueError):
        fixed.observe(np.float32([1]))
    with pytest.raises(ValueError):
        lowbit.calibration.FixedObserver(math.nan)
