#!/usr/bin/env bash
# Faults at every site, interleavings, a soak, threads that keep accounts, and everything at once, on both cores;
# repeatable by a seed: ci/stress.sh [SEED [SECONDS OF SOAK AND OF ACCOUNTS]]
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seed=${1:-0} seconds=${2:-10}

stress() {
    export WARMSET_PURE=$1
    say "faults, WARMSET_PURE=$1, seed $seed: injected / survived / lost"
    "$work/stress/bin/python" support/stress.py faults --seed "$seed"
    say "schedules, WARMSET_PURE=$1"
    "$work/stress/bin/python" support/stress.py schedules --seed "$seed"
    say "fuzz, WARMSET_PURE=$1, seed $seed"
    "$work/stress/bin/python" support/fuzz.py --seed "$seed" --seconds "$((seconds / 2))"
    say "soak, WARMSET_PURE=$1"
    "$work/stress/bin/python" support/stress.py soak --seed "$seed" --seconds "$seconds"
    say "accounts, WARMSET_PURE=$1"
    "$work/stress/bin/python" support/accounts.py --seed "$seed" --seconds "$seconds"
    say "threads, tasks, greenlets, forks and signals at once, WARMSET_PURE=$1"
    "$work/stress/bin/python" support/mixed.py --seed "$seed" --seconds "$((2 * seconds))"
}

install_wheel "$work/stress" "$(newest_complete)" "" greenlet
cp -r "$root/tests/support" "$work/support"
cd "$work"
two_at_a_time stress 0 1
