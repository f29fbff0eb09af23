#!/usr/bin/env bash
# Runs the demo with a report, and takes the pictures of it that the docs show. Needs chromium on PATH.
# ci/screenshots.sh [DIRECTORY]: by default docs/images
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

directory=${1:-$root/docs/images}
install_wheel "$work/browser" "$(newest_complete)" "[browser]"
"$work/browser/bin/warmset" demo --report "$work/report.html"
mkdir -p "$directory"
"$work/browser/bin/python" "$root/tests/support/browser.py" "$work/report.html" "$directory"
ls -l "$directory"
