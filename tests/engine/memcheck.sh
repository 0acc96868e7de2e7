#!/usr/bin/env bash
# The engine's tests under valgrind, with the debug build: exits non-zero when it finds anything.
#
# It sees what the tests cannot: reads of memory nobody wrote, a byte beyond a buffer (also when
# the cipher library does it), memory used after it was freed. Takes some minutes. Arguments go to
# pytest. Left out is what means nothing here: limits on descriptors (valgrind has its own), and
# threads that must run at once (valgrind runs them in turn).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly PY=.venv/bin/python
readonly FOUND=9

command -v valgrind >/dev/null || {
    echo "memcheck.sh: please install valgrind" >&2
    exit 1
}
[[ -x $PY ]] || ./build.sh

mkdir -p build
ENGINE_DEBUG=1 "$PY" setup.py -q build --build-base build/debug-objects --build-lib build/debug \
    >build/memcheck.log 2>&1 || {
    cat build/memcheck.log >&2
    exit 1
}

(($#)) || set -- tests/engine
status=0
PYTHONMALLOC=malloc ENGINE_EXAMPLES=3 valgrind --quiet --error-exitcode=$FOUND \
    --suppressions=tests/engine/memcheck.supp --num-callers=30 --log-file=build/memcheck.%p.txt \
    "$PY" -m pytest -q -o "pythonpath=build/debug ." -o timeout=0 -o faulthandler_timeout=0 \
    -p no:cacheprovider -k "not descriptor and not without_the_gil and not test_lifetime" \
    "$@" || status=$?
cat build/memcheck.*.txt
rm -f build/memcheck.*.txt
((status == 0)) || {
    echo "memcheck.sh: something was found, or a test failed (exit code $status)" >&2
    exit "$status"
}
echo "memcheck.sh: nothing found"
