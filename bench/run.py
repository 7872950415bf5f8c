"""lowbit beside its peers: `python bench/run.py --kernels --nets --calls --threads 1,2 --isa amx,avx512 --markdown`.

A level is a process of its own, in which the peers are held to it as far as they can be: at `avx512` and below the
process is refused AMX (amx.py), at `avx2` oneDNN and MKL are told to stay there and only
their float32 is compared.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version

HELD_TO_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kernels", action="store_true", help="GEMM shapes and 3x3 layers")
    parser.add_argument("--nets", nargs="?", const="all", help="whole nets: all, or names with commas")
    parser.add_argument("--codebook", action="store_true", help="1 to 8 bits: products beside MatMulNBits, decoding")
    parser.add_argument("--xnor", action="store_true", help="1 bit: GEMM shapes and 3x3 layers, beside torch float32")
    parser.add_argument("--calls", action="store_true", help="cost of a call, entropy search, doors from C++")
    parser.add_argument("--threads", default="1,2", help="thread counts (default 1,2)")
    parser.add_argument("--isa", help="levels (default: LOWBIT_ISA or the best, and avx512 below amx)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of measuring per contender (default 0.5)")
    parser.add_argument("--no-peers", action="store_true", help="only lowbit")
    parser.add_argument("--doors", type=pathlib.Path, help="CMake build folder with LOWBIT_BENCH, for times from C++")
    parser.add_argument("--json", type=pathlib.Path, help="write all readings to this file")
    parser.add_argument("--markdown", action="store_true", help="print tables instead of lines")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def levels(asked: str | None) -> list[str]:
    if asked:
        return asked.split(",")
    import lowbit

    best = lowbit.best_isa()
    return ["amx", "avx512"] if best == "amx" else [best]


def measure(args: argparse.Namespace, isa: str) -> dict:
    """Everything that was asked for, at one level, in this process."""
    import calls
    import compare
    import lowbit
    import nets
    import tables

    threads = [int(t) for t in args.threads.split(",")]
    rows, report = [], {"isa": isa}
    names = list(nets.NETS) if args.nets == "all" else (args.nets or "").split(",")
    for t in threads:
        parts = []
        if args.kernels:
            parts += [compare.gemms(isa, t, args.seconds, not args.no_peers)]
            parts += [compare.convs(isa, t, args.seconds, not args.no_peers)]
        if args.codebook:
            parts += [compare.codebook(isa, t, args.seconds, not args.no_peers)]
        if args.xnor:
            parts += [compare.xnor(isa, t, args.seconds, not args.no_peers)]
        if args.nets:
            parts += [compare.whole_nets(isa, t, args.seconds, names, not args.no_peers)]
        for part in parts:
            for row in part:
                rows.append(row)
                print(tables.line(row), file=sys.stderr, flush=True)
    if args.calls:
        report["calls"] = calls.overhead(isa, args.seconds)
        report["entropy_search"] = calls.entropy_search(args.seconds)
    if args.doors:
        report["doors"] = {str(t): calls.doors(isa, t, args.doors) for t in threads}
    probes = {}
    for kind in dict.fromkeys(
        ["fma", "avx2", "vnni", *(["amx"] if "amx" in lowbit.isas() else []), *(["xnor"] if args.xnor else [])]
    ):
        try:
            probes[kind] = lowbit._core.peak_probe(kind, 0.1)
        except ValueError:
            continue
    report["probes"] = probes
    report["rows"] = [row.to_json() for row in rows]
    report["tables"] = tables.markdown(rows, report)
    return report


def machine() -> dict:
    import lowbit

    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    peers = ("torch", "onnxruntime", "openvino", "numpy")
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": lowbit.cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "lowbit": lowbit.__version__,
        "peers": {p: of(p) for p in peers if of(p)},
    }


def main() -> None:
    args = arguments()
    if args.child:
        isa, path = args.child.split(":", 1)
        if isa != "amx":
            import amx

            amx.refuse()
        warnings.filterwarnings("ignore")
        pathlib.Path(path).write_text(json.dumps(measure(args, isa)))
        return
    if not (args.kernels or args.nets or args.calls or args.xnor or args.codebook):
        args.kernels = args.calls = True
        args.nets = "all"
        sys.argv += ["--kernels", "--calls", "--nets"]
    report = {"machine": machine(), "levels": []}
    with tempfile.TemporaryDirectory() as folder:
        for isa in levels(args.isa):
            path = pathlib.Path(folder) / f"{isa}.json"
            held = HELD_TO_AVX2 if isa in ("avx2", "scalar") else {}
            command = [sys.executable, __file__, *sys.argv[1:], "--child", f"{isa}:{path}"]
            subprocess.run(command, check=True, env={**os.environ, **held})
            report["levels"].append(json.loads(path.read_text()))
    if args.markdown:
        about = report["machine"]
        names = ", ".join(f"{name} {number}" for name, number in about["peers"].items())
        print(f"{about['date']}, {about['cpu']}, {about['cores']} cores, Python {about['python']}; {names}\n")
        for level in report["levels"]:
            print(level["tables"])
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
