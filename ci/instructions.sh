#!/usr/bin/env bash
# Instructions of a hit against those that are stored, with a margin of 3 %: what noise cannot change.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! command -v valgrind >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "install valgrind"
        (apt-get update && apt-get install -y --no-install-recommends valgrind) >"$work/apt.log" 2>&1 ||
            say "valgrind cannot be installed here: nothing is counted"
    fi
fi
environment "$work/venv"
cp -r "$root" "$work/source"
rm -rf "$work/source/build"
install "$work/venv" "$work/source"
cp -r "$root/benchmarks" "$work/benchmarks"
rm -rf "$work/source"
cd "$work"
"$work/venv/bin/python" -m benchmarks.instructions
