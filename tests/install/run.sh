#!/usr/bin/env bash
# Builds and runs an outside user of an installed lowbit. Usage: run.sh PREFIX [BUILD_FOLDER]; PREFIX is where `cmake --install`
# went, or what `python -m lowbit --cmakedir` prints.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=$(cd "$1" && pwd)
build=${2:-$(mktemp -d)}
good=$here/../golden/good/dense.lowbit
bad=$here/../golden/bad/flipped_weight.lowbit

cmake -S "$here" -B "$build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
cmake --build "$build" >>"$build.log" 2>&1 || { cat "$build.log"; exit 1; }

output=$("$build/run_net" "$good")
echo "$output"
[ "$output" = "$(cat "$here/expected.txt")" ] || { echo "run.sh: expected"; cat "$here/expected.txt"; exit 1; }

if "$build/run_net" "$bad" 2>"$build.err"; then
  echo "run.sh: a damaged file was accepted"
  exit 1
fi
grep -q "damaged" "$build.err" || { cat "$build.err"; exit 1; }
echo "install test: ok ($prefix)"
