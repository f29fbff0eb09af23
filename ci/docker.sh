#!/usr/bin/env bash
# The image of the example service: it builds, answers, and takes the limit of its container as its budget.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! docker info >/dev/null 2>&1; then
    say "no docker: the image of the example service is not built"
    exit 0
fi
say "build"
quietly docker build --file "$root/examples/Dockerfile" --tag warmset-example "$root"
say "run"
container=$(docker run --detach --memory 256m --publish 127.0.0.1::8000 warmset-example)
trap 'docker rm --force "$container" >/dev/null; rm -rf "$work"' EXIT
docker exec "$container" python -c '
from warmset.memory.limits import memory_limit
assert memory_limit() == 256 * 1024 ** 2, memory_limit()'
address=$(docker port "$container" 8000/tcp)
curl --silent --show-error --fail --retry 10 --retry-all-errors "http://$address/health/ready"
curl --silent --show-error --fail "http://$address/tags?text=Ada+met+Grace"
