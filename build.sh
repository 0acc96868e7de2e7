#!/usr/bin/env bash
# Sets up .venv and builds the extension in place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
[[ -x .venv/bin/python ]] || "${LUCID_PYTHON:-python3}" -m venv .venv
.venv/bin/pip install -q 'setuptools>=77' 'cython>=3.1'
[[ -d lucid/engine ]] && .venv/bin/python setup.py -q build_ext --inplace
.venv/bin/pip install -q --no-build-isolation -e '.[test]'
