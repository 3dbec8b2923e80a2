#!/usr/bin/env bash
# Checks everything that needs a GPU, in under eight minutes: the tests marked gpu, then one run of each family.
#
#   tests/gpu_check.sh [WHEELS]            on a machine with a CUDA GPU and a CUDA build of torch
#   tests/gpu_check.sh --dry-run [WHEELS]  the same steps on the CPU, with smaller models
#
# WHEELS is a folder of wheels from which missing packages are installed; without it, from the configured package index. An
# installed torch is never replaced: the pinned build may not have CUDA. PYTHON names the interpreter (python3).
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda
if [ "${1:-}" = --dry-run ]; then device=cpu; shift; fi
wheels=${1:-}
environment=${GPU_CHECK_ENVIRONMENT:-.venv-gpu}

"${PYTHON:-python3}" -m venv --system-site-packages "$environment" || exit 1
python=$environment/bin/python
source=()
if [ -n "$wheels" ]; then source=(--no-index --find-links "$wheels"); fi
missing=$("$python" tests/gpu_check.py missing) || exit 1
if [ -n "$missing" ]; then
  # shellcheck disable=SC2086
  "$python" -m pip install --quiet "${source[@]}" $missing || { echo "Packages are missing: $missing" >&2; exit 1; }
fi

export COMPRESSION_EXPLORER_HOME=$(mktemp -d)
trap 'rm -rf "$COMPRESSION_EXPLORER_HOME"' EXIT
status=0
timeout 200 "$python" -m pytest -q -m gpu --numprocesses=4 -p no:cacheprovider -p no:benchmark tests/engine/test_gpu.py || status=$?
timeout 270 "$python" -m tests.gpu_check runs --device "$device" --seconds 240 || status=$?
exit "$status"
