#!/usr/bin/env bash
# The documentation site, in strict mode: a broken link or anchor, a page outside the navigation and a docstring
# that cannot be read are errors; then spelling and wording.
# ci/docs.sh [DIRECTORY]: where the site is kept; by default it is only checked
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

site=$(realpath -m "${1:-$work/site}")
say "install what builds the site"
install_wheel "$work/docs" "$(newest_complete)" "[docs]"
cd "$root"
export PATH="$work/docs/bin:$PATH" NO_MKDOCS_2_WARNING=1
say "build the site"
quietly mkdocs build --strict --site-dir "$site"
if grep -rlE '<(script|link|img)[^>]+(src|href)="?https?://' "$site" --include='*.html'; then
    say "these pages fetch something from elsewhere"
    exit 1
fi
find "$site" -name '*.html' | wc -l
say "spelling and wording"
codespell *.md docs src mkdocs.yml
python ci/check_wording.py
