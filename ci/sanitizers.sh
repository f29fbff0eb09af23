#!/usr/bin/env bash
# The fuzzer and tests of the compiled core under AddressSanitizer, and with assertions: those of Cython's
# macros, and those of a debug build of the interpreter where there is one (Debian: python3.11-dbg).
# Repeatable by a seed: ci/sanitizers.sh [SEED [SECONDS OF EACH]]
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seed=${1:-0} seconds=${2:-600}
tests=(tests/test_{memory_safety,hot_path,leases,handles,executor,lookup,entry_states,reentry}.py)

# debug_interpreter: prints the path of a debug build of an interpreter; fails if there is none.
debug_interpreter() {
    local version
    for version in $supported; do
        "python$version-dbg" -c 'import sys; sys.gettotalrefcount(); print(sys.executable)' 2>/dev/null && return
    done
    return 1
}

# checked NAME INTERPRETER FLAGS [PRELOADED]: builds the extension with flags, and runs the fuzzer and tests on it.
checked() {
    local name=$1 interpreter=$2 flags=$3 preloaded=${4:-} where=$work/$1
    mkdir "$where"
    tar -xzf "$(sdist)" -C "$where" --strip-components=1
    install_wheel "$where/environment" "$interpreter" "[test-core]" cython setuptools
    cd "$where"
    CFLAGS="$flags -g -O1 -fno-omit-frame-pointer -UNDEBUG" LDFLAGS="$flags" \
        quietly "$where/environment/bin/python" setup.py -q build_ext --inplace
    suite "$where/suite"
    cd "$where/suite"
    export PYTHONPATH=$where/src WARMSET_REQUIRE_COMPILED=1 PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0
    say "$name: fuzz, seed $seed"
    LD_PRELOAD=$preloaded "$where/environment/bin/python" tests/support/fuzz.py --seed "$seed" --seconds "$seconds"
    say "$name: tests"
    # Of both cores: the pure one cannot be selected where the compiled one is required.
    LD_PRELOAD=$preloaded env -u WARMSET_REQUIRE_COMPILED "$where/environment/bin/python" -m pytest -q -p no:cacheprovider "${tests[@]}"
}

interpreter=$(newest_complete)
(checked address "$interpreter" -fsanitize=address "$(gcc -print-file-name=libasan.so)")
assertions="-DCYTHON_ASSUME_SAFE_MACROS=0 -DCYTHON_ASSUME_SAFE_SIZE=0"
if debug=$(debug_interpreter); then
    (checked debug "$debug" "$assertions")
else
    say "there is no debug build of an interpreter: assertions of the extension only"
    (checked assertions "$interpreter" "$assertions")
fi
