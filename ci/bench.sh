#!/usr/bin/env bash
# The short form of the benchmarks; fails if the compiled core is not 5 times as fast on hits.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

environment "$work/venv"
cp -r "$root" "$work/source"
rm -rf "$work/source/build"
install "$work/venv" "$work/source"
cp -r "$root/benchmarks" "$work/benchmarks"
cd "$work"
rm -rf "$work/source"
"$work/venv/bin/python" -m benchmarks --quick --require-ratio 5
