#!/usr/bin/env bash
# A short table of hits beside the peers; fails if the compiled core is not 3 times as fast as the pure one, a wide
# margin for a busy machine. `ci/full.sh` measures all rows, and requires 4 times.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_wheel "$work/bench" "$(newest_complete)" "[bench]"
cp -r "$root/benchmarks" "$work/benchmarks"
cd "$work"
say "hits"
"$work/bench/bin/python" -m benchmarks --quick --require-ratio 3 \
    --only hit-one get-method handle execute
