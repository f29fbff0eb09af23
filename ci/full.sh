#!/usr/bin/env bash
# What takes hours rather than minutes: the whole suite on every interpreter, the free-threaded build, long
# soaks, the demo on each engine, pictures in a browser, tables of benchmarks. `.ci/run` is the short form.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ci/steps.sh

step build.sh
step lint.sh
export WARMSET_POINTS_STEP=1  # every point of an interrupt or of a re-entry
EXTRAS=test,browser step test.sh
step matrix.sh
step pure.sh
step freethreaded.sh
step stress.sh "${SEED:-0}" 600
step sanitizers.sh "${SEED:-0}" 600
step tables.sh
step instructions.sh
step demo.sh
step demo.sh --runs 2 --engine dask
step demo.sh --runs 2 --engine ray
step screenshots.sh "$WARMSET_CI_WORK/images"
