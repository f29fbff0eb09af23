#!/usr/bin/env bash
# Builds sdist and wheels, installs the wheel into an empty environment, and runs the suite on both
# cores, with the checkout out of reach. Arguments go to pytest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say "build: sdist, the wheel from it, and the pure wheel"
environment "$work/venv"
install "$work/venv" build
cp -r "$root" "$work/source"
rm -rf "$work/source/build" "$work/source/dist" "$work/source"/src/*.egg-info
"$work/venv/bin/python" -m build --outdir "$work/dist" "$work/source" >"$work/build.log" 2>&1 ||
    { cat "$work/build.log"; exit 1; }
mkdir "$work/unpacked"
tar -xzf "$work"/dist/*.tar.gz -C "$work/unpacked" --strip-components=1
WARMSET_PURE=1 "$work/venv/bin/python" -m build --wheel --outdir "$work/pure" "$work/unpacked" \
    >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$work/venv/bin/python" "$root/ci/check_artefacts.py" "$work/dist" "$work/pure"

say "install the wheel, with the extras that the tests need"
install "$work/venv" "$(ls "$work"/dist/*.whl)[test]"
suite "$work/suite"
rm -rf "$work/source" "$work/unpacked"

say "the suite, on both cores"
cd "$work/suite"
WARMSET_REQUIRE_COMPILED=1 "$work/venv/bin/python" -c 'import warmset; print(warmset.__file__)'
"$work/venv/bin/python" -m pytest "$@"

say "the pure wheel, in an environment without a compiled core"
environment "$work/bare"
install "$work/bare" "$(ls "$work"/pure/*.whl)[test]"
"$work/bare/bin/python" -m pytest --pure-only --examples 30 -q \
    tests/test_lookup.py tests/test_model.py tests/test_import.py tests/test_legacy.py
