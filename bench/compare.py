"""What is compared: shapes, layers, nets; and the rows that a comparison gives."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

import nets
import ours
import peers
from timing import Timing, interleave

OURS = "lowbit"

GEMMS = (  # m, n, k
    (1, 4096, 4096), (8, 4096, 4096), (64, 64, 64), (128, 768, 768), (1024, 1024, 1024), (2048, 2048, 2048),
    (3136, 64, 576), (49, 512, 4608),
)  # fmt: skip
XNOR_GEMMS = ((1024, 1024, 1024), (512, 512, 4096), (1024, 1024, 8192))
CODEBOOK_GEMMS = (  # m, n, k, bits, mode
    (1, 4096, 4096, 2, "int8"), (1, 4096, 4096, 2, "float32"), (1, 4096, 4096, 4, "int8"), (1, 4096, 4096, 8, "int8"),
    (128, 4096, 4096, 2, "int8"), (128, 4096, 4096, 4, "int8"), (128, 4096, 4096, 2, "float32"),
)  # fmt: skip
CODEBOOK_DECODES = ((1 << 18, 2, "float32"), (1 << 25, 2, "float32"), (1 << 18, 2, "int8"), (1 << 18, 4, "int8"))
CONVS = ((56, 64), (28, 128), (14, 256), (7, 512))  # side, channels in and out; 3x3


@dataclass
class Row:
    """One comparison: the same work, level and thread count for everyone, in one process."""

    kind: str  # "gemm_i8", "conv2d_i8", "net"
    name: str
    isa: str
    threads: int
    macs: int
    times: dict[str, Timing]
    low: list[str]  # labels of the 8-bit peers; the other peers are float32
    limit: float = 0.0  # MAC/s that this level's instruction could do on these threads; 0: not measured
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        """The fastest 8-bit peer."""
        return min(self.low, key=lambda label: self.times[label].best)

    @property
    def ratio(self) -> float:
        """Times faster than the fastest 8-bit peer, best against best; NaN where one side is missing."""
        if OURS not in self.times or not self.low:
            return math.nan
        return self.times[self.best_peer].best / self.times[OURS].best

    @property
    def float_ratio(self) -> float:
        """Times faster than the fastest float32 peer."""
        floats = [t.best for label, t in self.times.items() if label != OURS and label not in self.low]
        return min(floats) / self.times[OURS].best if floats and OURS in self.times else math.nan

    @property
    def share(self) -> float:
        """Share of the physical limit that we reach."""
        return self.macs / self.times[OURS].best / self.limit if self.limit and OURS in self.times else math.nan

    def to_json(self) -> dict:
        """Plain values, times in seconds."""
        times = {label: {"best": t.best, "median": t.median, "readings": t.readings} for label, t in self.times.items()}
        return {
            "kind": self.kind, "name": self.name, "isa": self.isa, "threads": self.threads, "macs": self.macs,
            "limit_macs_per_second": self.limit, "share": self.share, "ratio": self.ratio,
            "float_ratio": self.float_ratio, "low": self.low, "times": times, **self.extra,
        }  # fmt: skip


def _row(
    kind: str, name: str, isa: str, threads: int, macs: int, call, low, full, seconds: float, probes=ours.PROBES
) -> Row:
    limit = ours.Limit(isa, probes)
    if isa == "avx2":  # oneDNN's vpmaddubsw saturates there: another result; onnxruntime cannot be held to a level
        low = {}
        full = {label: peer for label, peer in full.items() if not label.startswith("onnxruntime")}
    calls = {OURS: call, **low, **full} if call else {**low, **full}
    times = interleave(calls, seconds, quiet=threads > 1, every_round=limit)
    for _ in range(20):
        if not limit.macs_per_second:
            limit(0.05)
    return Row(kind, name, isa, threads, macs, times, list(low), limit.macs_per_second * threads)


def gemms(isa: str, threads: int, seconds: float, with_peers: bool = True) -> Iterator[Row]:
    """The products of GEMMS."""
    rng = np.random.default_rng(0)
    for m, n, k in GEMMS:
        low, full = peers.gemm(m, n, k, threads, rng) if with_peers else ({}, {})
        call = ours.gemm(m, n, k, threads, isa, rng)
        yield _row("gemm_i8", f"{m} x {n} x {k}", isa, threads, m * n * k, call, low, full, seconds)


def convs(isa: str, threads: int, seconds: float, with_peers: bool = True) -> Iterator[Row]:
    """The 3x3 layers of CONVS, and the same layers in our own float32 at the same level."""
    rng = np.random.default_rng(0)
    for side, c in CONVS:
        low, full = peers.conv(side, c, c, 3, threads, rng) if with_peers else ({}, {})
        full[f"lowbit conv2d_f32 {isa}"] = ours.conv_f32(side, c, c, 3, threads, isa, rng)
        call = ours.conv(side, c, c, 3, threads, isa, rng)
        yield _row("conv2d_i8", f"{c}ch @ {side}", isa, threads, side * side * c * c * 9, call, low, full, seconds)


def xnor(isa: str, threads: int, seconds: float, with_peers: bool = True) -> Iterator[Row]:
    """1 bit: XNOR_GEMMS, and the layers of CONVS from float to float and bits to bits beside torch float32."""
    rng = np.random.default_rng(0)
    for m, n, k in XNOR_GEMMS:
        call = ours.xnor_gemm(m, n, k, threads, isa, rng)
        name = f"GEMM {m} x {n} x {k}"
        yield _row("xnor", name, isa, threads, m * n * k, call, {}, {}, seconds, ours.XNOR_PROBES)
    for side, c in CONVS:
        full = {}
        if with_peers:
            calls = peers.conv(side, c, c, 3, threads, rng)[1]
            full = {label: peer for label, peer in calls.items() if label.startswith("torch")}
        for kind in ("float", "bits"):
            call = ours.xnor_conv(side, c, kind, threads, isa, rng)
            name, macs = f"{c}ch @ {side}, {kind} to {kind}", side * side * c * c * 9
            yield _row("xnor", name, isa, threads, macs, call, {}, full, seconds, ours.XNOR_PROBES)


def codebook(isa: str, threads: int, seconds: float, with_peers: bool = True) -> Iterator[Row]:
    """1 to 8 bits: CODEBOOK_GEMMS beside MatMulNBits; CODEBOOK_DECODES beside a store loop, in G weights/s."""
    rng = np.random.default_rng(0)
    for m, n, k, bits, mode in CODEBOOK_GEMMS:
        low, full = peers.codebook_gemm(m, n, k, bits, mode, threads, rng) if with_peers else ({}, {})
        call = ours.codebook_gemm(m, n, k, bits, mode, threads, isa, rng)
        name = f"GEMM {m} x {n} x {k}, {bits} bit, {mode}"
        yield _row("codebook", name, isa, threads, m * n * k, call, low, full, seconds, {})
    for count, bits, dtype in CODEBOOK_DECODES:
        call = ours.codebook_decode(count, bits, dtype, threads, isa, rng)
        name, full = f"decode {count} weights, {bits} bit to {dtype}", peers.fill(count, dtype)
        yield _row("codebook", name, isa, threads, count, call, {}, full, seconds, {})


def whole_nets(isa: str, threads: int, seconds: float, names: list[str], with_peers: bool = True) -> Iterator[Row]:
    """Nets at batch 1."""
    for name in names:
        low, full = peers.net(name, threads) if with_peers else ({}, {})
        call = ours.net(name, threads, isa)
        yield _row("net", name, isa, threads, nets.NETS[name].macs, call, low, full, seconds)


def geometric_mean(values: list[float]) -> float:
    """Of the values that are numbers; NaN where there are none."""
    logs = [math.log(v) for v in values if v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
