#!/usr/bin/env bash
# Builds and runs an outside user of an installed lowbit. Usage: run.sh PREFIX [BUILD_FOLDER]; PREFIX is where `cmake --install`
# went, or what `python -m lowbit --cmakedir` prints.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=$(cd "$1" && pwd)
build=${2:-$(mktemp -d)}
good=$here/../golden/good/dense.lowbit
bad=$here/../golden/bad/flipped_weight.lowbit

build_user() { # source folder, build folder
  cmake -S "$1" -B "$2" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release >"$2.log" 2>&1 &&
    cmake --build "$2" >>"$2.log" 2>&1 || { cat "$2.log"; exit 1; }
}

build_user "$here" "$build"

output=$("$build/run_net" "$good")
echo "$output"
[ "$output" = "$(cat "$here/expected.txt")" ] || { echo "run.sh: expected"; cat "$here/expected.txt"; exit 1; }

for name in binary compressed uniform; do # bits, and codes of few bits, from file to engine
  "$build/run_net" "$here/../golden/good/$name.lowbit" | head -1 >"$build.$name"
  diff "$build.$name" "$here/expected_$name.txt" || { echo "run.sh: the $name net gives something else"; exit 1; }
done

if "$build/run_net" "$bad" 2>"$build.err"; then
  echo "run.sh: a damaged file was accepted"
  exit 1
fi
grep -q "damaged" "$build.err" || { cat "$build.err"; exit 1; }

# The example in the repository, on two images of zeros.
build_user "$here/../../examples/cpp" "$build-example"
head -c 48 /dev/zero >"$build.images"
"$build-example/classify" "$good" "$build.images" 1 | tee "$build.classes"
[ "$(grep -c 'class' "$build.classes")" = 2 ] || { echo "run.sh: expected two images"; exit 1; }
echo "install test: ok ($prefix)"
