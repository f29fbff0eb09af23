#!/usr/bin/env bash
# Both cores without the interpreter lock: the suite, except what needs packages that this build has no wheels
# for; faults, schedules, a soak and accounts; throughput of threads.
# ci/freethreaded.sh [INTERPRETER [SECONDS OF SOAK AND OF ACCOUNTS]]
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

candidate=${1:-python3.13t}
seconds=${2:-120}
if ! "$candidate" -c 'import sys; sys.exit(sys._is_gil_enabled())' 2>/dev/null; then
    say "no free-threaded interpreter ($candidate): nothing is run"
    exit 0
fi
candidate=$("$candidate" -c 'import sys; print(sys.executable)')
say "$("$candidate" -VV)"
install_wheel "$work/test" "$candidate" "[otel,prometheus,test-core]" opentelemetry-sdk pytest-xdist --only-binary hypothesis
suite "$work/suite"
cd "$work/suite"

say "the import leaves the lock off"
"$work/test/bin/python" -W error -c '
import sys, warmset
assert warmset.implementation == "compiled" and not sys._is_gil_enabled()'

say "the suite, on both cores"
"$work/test/bin/python" -m pytest -q -n 2 --examples 30 tests \
    --ignore tests/cli --ignore tests/engines --ignore tests/share --ignore tests/test_docs.py \
    --ignore tests/memory/test_policy_benchmark.py

for pure in 0 1; do
    for mode in faults schedules "soak --seconds $seconds"; do
        say "$mode, WARMSET_PURE=$pure"
        # shellcheck disable=SC2086
        WARMSET_PURE=$pure "$work/test/bin/python" tests/support/stress.py $mode
    done
    say "accounts, WARMSET_PURE=$pure"
    WARMSET_PURE=$pure "$work/test/bin/python" tests/support/accounts.py --seconds "$seconds"
done

say "throughput of 1 to 4 threads"
"$work/test/bin/python" -m benchmarks --only threads --no-write
