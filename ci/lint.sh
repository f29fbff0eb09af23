#!/usr/bin/env bash
# Style, types, layers and spelling: ruff, mypy strict (the pure core is what a checker sees), cython-lint,
# import-linter, codespell.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say "install the linters, and what the package imports"
install_wheel "$work/lint" "$(newest_complete)" "[lint,test]"
cd "$root"
export PATH="$work/lint/bin:$PATH" RUFF_CACHE_DIR=$work/ruff
say "ruff"
ruff check .
ruff format --check .
say "mypy"
mypy --cache-dir "$work/mypy"
say "cython-lint"
cython-lint src/warmset/_core_c.pyx src/warmset/*.pxi
say "import-linter"
PYTHONPATH=src lint-imports --no-cache
say "spelling and wording"
codespell *.md docs src ci examples benchmarks mkdocs.yml pyproject.toml
python ci/check_wording.py
say "samples for type checkers, against the installed wheel"
WARMSET_TYPE_CHECKERS=required "$work/lint/bin/python" -m pytest -q -p no:cacheprovider --confcutdir tests/typing tests/typing
say "the files around the code"
WARMSET_CI_WORK=$shared bash ci/project_files.sh
