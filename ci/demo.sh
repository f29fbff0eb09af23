#!/usr/bin/env bash
# Makes an environment, builds and installs warmset with the demo's packages, and runs the demo.
# Arguments go to `warmset demo`, for example: bash ci/demo.sh --runs 3
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

extras=demo
for word in "$@"; do
    case $word in dask | ray) extras+=,$word ;; esac
done
interpreter=$(newest_complete)
say "build and install, with the demo's packages, for $("$interpreter" -VV)"
install_wheel "$work/demo" "$interpreter" "[$extras]"
cd "$work"
say "warmset demo $*"
RAY_USAGE_STATS_ENABLED=0 "$work/demo/bin/warmset" demo "$@"
