#!/usr/bin/env bash
# Style and types: ruff, mypy strict (the pure core is what a checker sees), cython-lint.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

environment "$work/venv"
install "$work/venv" "$root[lint,test]"
cd "$root"
export PATH="$work/venv/bin:$PATH" RUFF_CACHE_DIR=$work/ruff
say "ruff"
ruff check .
ruff format --check .
say "mypy"
mypy --cache-dir "$work/mypy"
say "cython-lint"
cython-lint src
