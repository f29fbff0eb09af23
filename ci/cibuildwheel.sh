#!/usr/bin/env bash
# Wheels of this system, on runners with Linux (and Docker), macOS or Windows: builds, repairs and tests what
# [tool.cibuildwheel] of pyproject.toml says, into a directory. ci/cibuildwheel.sh [DIRECTORY]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dist=${1:-dist}
python -m pip install --quiet cibuildwheel==4.3.5
python -m cibuildwheel --output-dir "$dist"
python ci/check_artefacts.py "$dist"/*.whl
