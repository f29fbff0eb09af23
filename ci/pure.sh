#!/usr/bin/env bash
# The pure package: the wheel that is built with WARMSET_PURE=1, and what a source install makes of a machine
# without a compiler, and of a compiler that fails.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

file=$(pure_wheel)
source=$(sdist)
interpreter=$(newest_complete)
environment "$work/pure" "$interpreter"
install "$work/pure" "warmset[test-core] @ file://$file"
suite "$work/suite"
cd "$work/suite"
say "the pure wheel"
"$work/pure/bin/python" -c 'import warmset; assert warmset.implementation == "pure"'
"$work/pure/bin/python" -m pytest -q --pure-only --examples 30 \
    tests/test_lookup.py tests/test_model.py tests/test_import.py tests/test_legacy.py

# A PATH with nothing on it: neither a compiler nor anything else of this machine can be found.
mkdir "$work/empty" "$work/failing"
unset CC
"$interpreter" -m venv "$work/plain"
# source_install PATH SWITCH...: as a user does it, with an environment that builds in isolation.
source_install() {
    local path=$1
    shift
    env PATH="$path" "$@" "$work/plain/bin/python" -m pip install --verbose --disable-pip-version-check \
        --force-reinstall --no-cache-dir "$source" >"$work/pip.log" 2>&1
}
# refused TEXT PATH SWITCH...: it fails, says TEXT, and leaves nothing installed.
refused() {
    local text=$1
    shift
    "$work/plain/bin/python" -m pip uninstall --quiet --yes warmset
    if source_install "$@"; then say "the installation went through: expected '$text'"; exit 1; fi
    grep -F -- "$text" "$work/pip.log" || { cat "$work/pip.log"; exit 1; }
    if "$work/plain/bin/python" -m pip show --quiet warmset 2>/dev/null; then exit 1; fi
}

say "no compiler: the pure package, and a warning that names both switches"
source_install "$work/empty" || { cat "$work/pip.log"; exit 1; }
grep 'no C compiler was found.*WARMSET_PURE=1.*WARMSET_REQUIRE_COMPILED=1' "$work/pip.log" | sort -u
cd "$work"
"$work/plain/bin/python" -c 'import warmset; assert warmset.implementation == "pure"'

say "no compiler, and WARMSET_PURE=1: no warning"
source_install "$work/empty" WARMSET_PURE=1 || { cat "$work/pip.log"; exit 1; }
if grep -F 'no C compiler was found' "$work/pip.log"; then exit 1; fi

say "no compiler, and WARMSET_REQUIRE_COMPILED=1: an error"
refused "WARMSET_REQUIRE_COMPILED is set, but no C compiler was found" "$work/empty" WARMSET_REQUIRE_COMPILED=1

say "both switches: an error"
refused "contradict each other" "$work/empty" WARMSET_PURE=1 WARMSET_REQUIRE_COMPILED=1

say "a compiler that fails, and one that is named but missing: errors"
compiler=$("$interpreter" -c 'import sysconfig; print(sysconfig.get_config_var("CC").split()[0])')
printf '#!/bin/sh\necho "this compiler fails" >&2\nexit 1\n' >"$work/failing/${compiler##*/}"
chmod +x "$work/failing/${compiler##*/}"
refused "this compiler fails" "$work/failing"
refused "no-such-compiler" "$work/empty" CC=no-such-compiler
