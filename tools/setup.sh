#!/usr/bin/env bash
# Make or re-use the environment in .venv (or $VENV). What it does is printed; a second run with the same
# requirements does nothing. Variables: PYTHON (default python3), TORCH_INDEX (an index with CPU builds of torch),
# FULL=1 (install litert-torch with all its declared dependencies instead of the exporting half).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
python=${PYTHON:-python3}
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed; set PYTHON"
key=$(cat requirements/*.txt pyproject.toml tools/setup.sh | sha256sum | cut -d' ' -f1)-${FULL:-0}
if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.qhyvit-setup" 2>/dev/null)" = "$key" ]; then
  say "$venv is up to date"
  exit 0
fi
[ -x "$venv/bin/python" ] || { say "making $venv with $("$python" --version)"; "$python" -m venv "$venv"; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

torch=$(grep -v '^#' requirements/torch.txt)
if "$venv/bin/python" -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '${torch#*==}')" 2>/dev/null; then
  say "$torch is there already"
elif [ -n "${TORCH_INDEX:-}" ]; then
  say "installing $torch from \$TORCH_INDEX"
  pip install --index-url "$TORCH_INDEX" "$torch"
else
  # On x86-64 Linux the package index may serve the CUDA build, 8 GB with its libraries: look before installing.
  say "resolving $torch"
  if pip install --dry-run --report - "$torch" | grep -q '"name": "nvidia-'; then
    say "the default build of torch brings CUDA (8 GB); trying the CPU build of PyTorch's own index"
    pip install --index-url https://download.pytorch.org/whl/cpu "$torch" ||
      { say "that index cannot be reached: installing the default build"; pip install "$torch"; }
  else
    say "installing $torch, a build without CUDA"
    pip install "$torch"
  fi
fi
if [ "${FULL:-0}" = 1 ]; then
  say "installing the host stage with all declared dependencies"
  pip install -e '.[pipeline,sweep,dev]'
else
  say "installing the host stage (the exporting half of litert-torch, without its generative dependencies)"
  pip install --no-deps -r requirements/pipeline.txt
  say "installing command-line and test tools (pip will name packages that litert-torch and timm declare: left out on purpose)"
  pip install -r requirements/tools.txt
  pip install --no-deps --no-build-isolation -e .
fi
printf '%s' "$key" > "$venv/.qhyvit-setup"
say "done: $venv, $(du -sh "$venv" | cut -f1)"
