#!/usr/bin/env bash
# Build the site of the documents into build/site, in an environment of its own (.venv-docs or $DOCS_VENV, 160 MB).
# A broken link, a missing anchor or a page that no menu names is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${DOCS_VENV:-.venv-docs}
python=${PYTHON:-python3}
key=$(sha256sum requirements/docs.txt | cut -d' ' -f1)
if [ "$(cat "$venv/.qhyvit-docs" 2>/dev/null)" != "$key" ]; then
  printf 'docs: making %s\n' "$venv"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip --disable-pip-version-check --quiet install -r requirements/docs.txt
  printf '%s' "$key" > "$venv/.qhyvit-docs"
fi
NO_MKDOCS_2_WARNING=1 "$venv/bin/python" -m mkdocs build --strict --clean
printf 'docs: open build/site/index.html\n'
