#!/usr/bin/env bash
# Faults at every site, interleavings, a short soak, and threads that keep accounts, on both cores,
# repeatable by a seed: ci/stress.sh [SEED]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seed=${1:-0}
environment "$work/venv"
cp -r "$root" "$work/source"
rm -rf "$work/source/build"
install "$work/venv" "$work/source"
cp -r "$root/tests/support" "$work/support"
rm -rf "$work/source"
cd "$work"
for pure in 0 1; do
    say "faults, WARMSET_PURE=$pure, seed $seed: injected / survived / lost"
    WARMSET_PURE=$pure "$work/venv/bin/python" support/stress.py faults --seed "$seed"
    say "schedules"
    WARMSET_PURE=$pure "$work/venv/bin/python" support/stress.py schedules --seed "$seed"
    say "soak"
    WARMSET_PURE=$pure "$work/venv/bin/python" support/stress.py soak --seed "$seed" --seconds 20
    say "accounts"
    WARMSET_PURE=$pure "$work/venv/bin/python" support/accounts.py --seed "$seed" --seconds 20
done
