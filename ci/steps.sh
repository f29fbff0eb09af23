# Sourced by `.ci/run` and `ci/full.sh`: steps that share one work directory, and how long each took.

WARMSET_CI_WORK=$(mktemp -d "${TMPDIR:-/tmp}/warmset-ci.XXXXXX")
export WARMSET_CI_WORK
times=()

# A step that takes longer than this many seconds fails, with all the processes that it started; 0 sets no limit.
step_limit=${step_limit:-1500}

# step SCRIPT ARGUMENTS: runs one of the scripts beside this file; the first that fails ends the run.
step() {
    local began=$SECONDS status=0
    timeout --kill-after 10 "$step_limit" bash "ci/$1" "${@:2}" || status=$?
    times+=("$(printf '%5d s  %s%s' $((SECONDS - began)) "$*" "$([ "$status" = 0 ] || echo ': FAILED')")")
    return "$status"
}

finish() {
    rm -rf "$WARMSET_CI_WORK"
    printf '\n== seconds of each step\n'
    printf '%s\n' "${times[@]}"
    printf '%5d s  together\n' "$SECONDS"
}
trap finish EXIT
