#!/usr/bin/env bash
# The environment of a developer: `.venv` with the package, editable and compiled, and with all that its tests and
# its linters need. PYTHON chooses the interpreter.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$root"
interpreter=$(newest_complete)
say "$("$interpreter" -VV)"
[ -x .venv/bin/python ] || environment .venv "$interpreter"
install .venv --editable '.[dev]'
.venv/bin/python -c 'import warmset; print(f"warmset, {warmset.implementation}")'
say "ready: . .venv/bin/activate"
