# Sourced by the other scripts: where things are, and how an environment is made.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d "${TMPDIR:-/tmp}/warmset.XXXXXX")
trap 'rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }

# environment DIR [INTERPRETER]: an empty virtual environment with a current pip.
environment() {
    "${2:-$python}" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
}

# install DIR ARGUMENTS: pip install into an environment.
install() {
    local where=$1
    shift
    "$where/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# suite DIR: the tests and what they read, without the sources, so that only an installed package
# can be what is tested.
suite() {
    mkdir -p "$1"
    cp -r "$root/tests" "$root/docs" "$root/benchmarks" "$root/README.md" "$root/pyproject.toml" "$1/"
    find "$1" -name __pycache__ -prune -exec rm -rf {} +
}
