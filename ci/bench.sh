#!/usr/bin/env bash
# The short form of the benchmarks, beside the peers, and the tracked hits by pytest-benchmark; each fails if
# the compiled core is not 5 times as fast as the pure one on hits.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say "install, with the peers"
environment "$work/venv"
cp -r "$root" "$work/source"
rm -rf "$work/source/build"
install "$work/venv" "$work/source[bench]"
cp -r "$root/benchmarks" "$work/benchmarks"
cd "$work"
rm -rf "$work/source"
say "the table, short form"
"$work/venv/bin/python" -m benchmarks --quick --require-ratio 5
say "the tracked hits"
"$work/venv/bin/python" -m pytest -q -p no:cacheprovider benchmarks --benchmark-json "$work/hits.json" \
    --benchmark-max-time 0.2 --benchmark-columns median,iqr,rounds
"$work/venv/bin/python" -m benchmarks.check_ratio "$work/hits.json" 5
