#!/usr/bin/env bash
# Runs the demo with a report, and takes the pictures of it that the docs show. Needs chromium on PATH.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

environment "$work/venv"
cp -r "$root" "$work/source"
rm -rf "$work/source/build"
install "$work/venv" "$work/source[browser]"
rm -rf "$work/source"
"$work/venv/bin/warmset" demo --report "$work/report.html"
mkdir -p "$root/docs/images"
"$work/venv/bin/python" "$root/tests/support/browser.py" "$work/report.html" "$root/docs/images"
ls -l "$root/docs/images"
