# Sourced by the other scripts: directories, interpreters, distributions, environments.
#
# The steps of one `.ci/run` share WARMSET_CI_WORK, where tools, sdist and wheels are built once. A script
# that is started on its own builds what it needs in a directory that it removes at its end.

set -euo pipefail
shopt -s inherit_errexit
unset PYTHONPATH PYTHONDONTWRITEBYTECODE WARMSET_PURE WARMSET_REQUIRE_COMPILED

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
supported="3.10 3.11 3.12 3.13 3.14"
# All test dependencies have wheels for these; the newest that is present runs the whole suite.
complete="3.13 3.12 3.11 3.10"

work=$(mktemp -d "${TMPDIR:-/tmp}/warmset.XXXXXX")
trap 'rm -rf "$work"' EXIT
shared=${WARMSET_CI_WORK:-$work/shared}
mkdir -p "$shared"

say() { printf '\n== %s\n' "$*"; }

# quietly COMMAND: prints the output of a command only if it fails.
quietly() {
    local log
    log=$(mktemp "$work/log.XXXXXX")
    "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

# interpreter VERSION: prints the path of an interpreter, from PATH or from pyenv; fails if there is none. Only a
# version such as 3.13t is a free-threaded one: installations of both kinds may bear the same name.
interpreter() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"${1%t}".*/bin/python; do
        "$candidate" -c '
import sys, sysconfig, venv
bool(sysconfig.get_config_var("Py_GIL_DISABLED")) == sys.argv[1].endswith("t") or sys.exit(1)
print(sys.executable)' "$1" 2>/dev/null && return
    done
    return 1
}

# present VERSIONS: prints the paths of the interpreters that are present, one a line.
present() {
    local version
    for version in "$@"; do interpreter "$version" || true; done
}

# newest_complete: prints $PYTHON or the newest interpreter that all test dependencies support.
newest_complete() {
    local version
    if [ -z "${PYTHON:-}" ]; then
        for version in $complete; do interpreter "$version" && return; done
    fi
    "$python" -c 'import sys; print(sys.executable)'
}

# tools: installs uv where pip finds it, once, and sets `uv` to its path or to nothing.
tools() {
    if [ ! -e "$shared/tools/ready" ]; then
        "$python" -m venv --clear "$shared/tools"
        "$shared/tools/bin/python" -m pip install --quiet --disable-pip-version-check uv ||
            say "uv cannot be installed here: pip is used" >&2
        touch "$shared/tools/ready"
    fi
    uv=$shared/tools/bin/uv
    [ -x "$uv" ] || uv=
}

# environment DIR INTERPRETER: makes an empty virtual environment.
environment() {
    tools
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --python "$2" "$1"
    else
        "$2" -m venv "$1"
    fi
}

# install DIR ARGUMENTS: installs into an environment, through the cache of uv or of pip.
install() {
    local where=$1
    shift
    tools
    if [ -n "$uv" ]; then
        "$uv" pip install --quiet --python "$where/bin/python" "$@"
    else
        "$where/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

# install_wheel DIR INTERPRETER EXTRAS ARGUMENTS: makes an environment with the compiled wheel, some of its
# extras ("" for none) and further packages.
install_wheel() {
    local where=$1 interpreter=$2 extras=$3 file
    shift 3
    file=$(wheel "$interpreter")
    environment "$where" "$interpreter"
    install "$where" "warmset$extras @ file://$file" "$@"
}

# sdist: prints the path of the source distribution; builds it if this run has not.
sdist() {
    if [ ! -d "$shared/sdist" ]; then
        mkdir "$work/source"
        tar -c -C "$root" --exclude .git --exclude ./build --exclude ./dist --exclude '*.egg-info' \
            --exclude '*.so' --exclude '*.c' --exclude __pycache__ . | tar -x -C "$work/source"
        distribution sdist "$python" --sdist "$work/source"
    fi
    echo "$shared"/sdist/*.tar.gz
}

# wheel INTERPRETER: prints the path of the compiled wheel; builds it from the sdist if this run has not.
wheel() {
    local tag
    tag=$("$1" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')
    from_sdist "wheel-$tag" "$1"
}

# pure_wheel: prints the path of the wheel that holds no extension.
pure_wheel() { WARMSET_PURE=1 from_sdist pure "$python"; }

# wheels INTERPRETERS: builds compiled wheels, two at a time, that this run has not built yet.
wheels() {
    tools
    sdist >/dev/null
    two_at_a_time wheel "$@"
}

from_sdist() {
    local file unpacked
    if [ ! -d "$shared/$1" ]; then
        file=$(sdist)
        unpacked=$(mktemp -d "$work/unpacked.XXXXXX")
        tar -xzf "$file" -C "$unpacked" --strip-components=1
        distribution "$1" "$2" --wheel "$unpacked"
    fi
    echo "$shared/$1"/*.whl
}

# distribution NAME INTERPRETER ARGUMENTS: runs `build`; the result is in $shared/NAME, whole or not at all.
distribution() {
    local name=$1 made
    made=$(mktemp -d "$work/made.XXXXXX")
    environment "$made/environment" "$2"
    shift 2
    install "$made/environment" build
    PATH="$shared/tools/bin:$PATH" quietly "$made/environment/bin/python" -m build \
        ${uv:+--installer uv} --outdir "$made/dist" "$@"
    mv "$made/dist" "$shared/$name"
}

# suite DIR: copies the tests and what they read, without the sources, so that only an installed package
# can be what is tested.
suite() {
    mkdir -p "$1"
    tar -c -C "$root" --exclude __pycache__ tests ci docs benchmarks examples changes README.md CONTRIBUTING.md \
        pyproject.toml | tar -x -C "$1"
}

# two_at_a_time COMMAND ARGUMENTS: runs COMMAND with each argument, on two cores; at the end it prints the
# outputs in order. Fails if one failed.
two_at_a_time() {
    local command=$1 argument failed=0 running=() logs=()
    shift
    for argument in "$@"; do
        if [ ${#running[@]} = 2 ]; then
            wait "${running[0]}" || failed=1
            running=("${running[@]:1}")
        fi
        logs+=("$(mktemp "$work/log.XXXXXX")")
        "$command" "$argument" >"${logs[-1]}" 2>&1 &
        running+=($!)
    done
    for argument in "${running[@]}"; do wait "$argument" || failed=1; done
    cat "${logs[@]}"
    return "$failed"
}
