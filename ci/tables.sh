#!/usr/bin/env bash
# The benchmarks beside the peers, all rows in short form, and the tracked hits by pytest-benchmark; each fails
# if the compiled core is not 4 times as fast as the pure one on hits: `get_method` is 4.5 times as fast, for
# compiled it takes 1.1 times what the interpreter's own getattr does.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_wheel "$work/bench" "$(newest_complete)" "[bench]"
cp -r "$root/benchmarks" "$work/benchmarks"
cd "$work"
say "all rows"
"$work/bench/bin/python" -m benchmarks --quick --require-ratio 4
say "the tracked hits"
"$work/bench/bin/python" -m pytest -q -p no:cacheprovider benchmarks --benchmark-json "$work/hits.json" \
    --benchmark-max-time 0.2 --benchmark-columns median,iqr,rounds
"$work/bench/bin/python" -m benchmarks.check_ratio "$work/hits.json" 4
