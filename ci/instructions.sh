#!/usr/bin/env bash
# Instructions of a hit against those that are stored, with a margin of 3 %: what noise cannot change.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! command -v valgrind >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "install valgrind"
        (apt-get update && apt-get install -y --no-install-recommends valgrind) >"$work/apt.log" 2>&1 ||
            say "valgrind cannot be installed here: nothing is counted"
    fi
fi
say "instructions"
# The stored counts are of the default interpreter.
install_wheel "$work/instructions" "$python" ""
"$work/instructions/bin/python" -m compileall -q "$work/instructions/lib"
cp -r "$root/benchmarks" "$work/benchmarks"
cd "$work"
"$work/instructions/bin/python" -m benchmarks.instructions
