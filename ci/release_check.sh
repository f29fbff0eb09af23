#!/usr/bin/env bash
# What must hold before a tag is published: ci/release_check.sh v0.1.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=${1#v}
wrong() { printf 'release: %s\n' "$*" >&2; exit 1; }
grep -qxF "version = \"$version\"" pyproject.toml || wrong "pyproject.toml has another version than $version"
grep -qxF "__version__ = \"$version\"" src/warmset/_version.py || wrong "_version.py has another version than $version"
grep -qxF "version: $version" CITATION.cff || wrong "CITATION.cff has another version than $version"
[[ $(grep -m 1 '^## ' CHANGELOG.md) =~ ^"## $version ("[0-9-]{10}")"$ ]] ||
    wrong "CHANGELOG.md does not begin with '## $version (DATE)'"
fragments=$(find changes -type f ! -name README.md)
[ -z "$fragments" ] || wrong "these fragments are not in CHANGELOG.md yet: $fragments"
echo "release: $version is consistent"
