#!/usr/bin/env bash
# What takes hours rather than minutes: the whole suite on every interpreter, the free-threaded build, long
# soaks, the demo on each engine, pictures in a browser, tables of benchmarks. `.ci/run` is the short form.
#
# ci/full.sh [SEED [SECONDS]]: SECONDS is how long each soak takes. A part that fails does not end the run; the
# run fails at its end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
step_limit=0
. ci/steps.sh

seed=${1:-0} seconds=${2:-600}
failed=0
part() { step "$@" || failed=1; }

step build.sh
part lint.sh
part docs.sh
part pure.sh
part wheels.sh
part docker.sh
part instructions.sh
part demo.sh
part demo.sh --runs 2 --engine dask
part demo.sh --runs 2 --engine ray
part screenshots.sh "$WARMSET_CI_WORK/images"
part tables.sh
part stress.sh "$seed" "$seconds"
part sanitizers.sh "$seed" "$seconds"
part freethreaded.sh python3.13t "$seconds"
part matrix.sh 3.10 3.11 3.12 3.14
# 3.13, for which all test dependencies have wheels, meets every point of an interrupt or of a re-entry.
WARMSET_POINTS_STEP=1 EXTRAS=test,browser part test.sh
exit "$failed"
