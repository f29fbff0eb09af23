#!/usr/bin/env bash
# Makes an environment, builds and installs warmset with the demo's packages, and runs the demo.
# Arguments go to `warmset demo`, for example: bash ci/demo.sh --runs 3
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say "build and install, with the demo's packages"
environment "$work/venv"
cp -r "$root" "$work/source"
rm -rf "$work/source/build"
install "$work/venv" "$work/source[demo,dask,ray]"
rm -rf "$work/source"
cd "$work"
say "warmset demo $*"
"$work/venv/bin/warmset" demo "$@"

for engine in dask ray; do
    say "warmset demo --engine $engine"
    RAY_USAGE_STATS_ENABLED=0 "$work/venv/bin/warmset" demo --runs 2 --engine "$engine"
done
