#!/usr/bin/env bash
# Arm's TOSA converter and reference model in an environment of their own (.venv-tosa or $TOSA_VENV, 300 MB).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${TOSA_VENV:-.venv-tosa}
python=${PYTHON:-python3}
key=$(sha256sum requirements/tosa.txt | cut -d' ' -f1)
if [ "$(cat "$venv/.qhyvit-tosa" 2>/dev/null)" != "$key" ]; then
  printf 'tosa: making %s\n' "$venv"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip --disable-pip-version-check --quiet install -r requirements/tosa.txt
  printf '%s' "$key" > "$venv/.qhyvit-tosa"
fi
