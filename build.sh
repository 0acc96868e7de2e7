#!/usr/bin/env bash
# The one command of this project. `./build.sh help` tells what it does.
#
# It needs bash, python3 (3.10 to 3.13) and, on Debian, apt-get; everything else it installs itself
# or asks for by name. A second call with nothing changed does nothing and says nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly VENV=.venv
readonly PY=$VENV/bin/python
readonly WAIT_FOR_LOCK_S=900
readonly TEST_ROOTS=/tmp/lucid-test

usage() {
    cat <<'EOF'
./build.sh                 set up .venv and build the extension in place
./build.sh test [ARGS]     build, then pytest ARGS; fails on mounts left behind
./build.sh check           build, then ruff, mypy --strict, the import rules, stubtest, shellcheck
./build.sh soak [ARGS]     kill -9 and power cuts under load, and what was lost; see soak --help
./build.sh hostile [ARGS]  every attack of a hostile store, on a real S3 server too
./build.sh debug [ARGS]    a checking engine in build/debug, and its tests
./build.sh memcheck        the engine's tests under valgrind
./build.sh demo            mount a filespace in a temporary directory and show the main job
./build.sh bench [ARGS]    measurements, of other file systems too; see bench --help
./build.sh wheel           sdist and wheel in dist/, looked through and tried in a fresh environment
./build.sh clean           remove what was built (.venv stays)
./build.sh help            this page

LUCID_PYTHON=python3.12    the interpreter for a new .venv (default: python3)
EOF
}

say() { printf '%s\n' "build.sh: $*" >&2; }
die() {
    say "$@"
    exit 1
}

# The same, after showing a log.
die_with() {
    cat "$1" >&2
    shift
    die "$@"
}

# --- One build at a time -------------------------------------------------------------------------

# Holds the lock until unlock, or until this process ends. Tests run outside of it.
lock() {
    mkdir -p build
    exec {LOCK_FD}>build/.lock
    if ! flock --nonblock "$LOCK_FD"; then
        say "waiting for another build in this directory"
        flock --wait "$WAIT_FOR_LOCK_S" "$LOCK_FD" || die "the other build has not ended; giving up"
    fi
}

unlock() { exec {LOCK_FD}>&-; }

# --- Debian packages -----------------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }

host_python() { printf '%s' "${LUCID_PYTHON:-python3}"; }

# Prints the Debian packages without which nothing can be built here, one a line.
missing_for_build() {
    local python
    python=$(host_python)
    have gcc || echo gcc
    [[ -e /usr/include/stdio.h ]] || echo libc6-dev
    have pkg-config || echo pkg-config
    if ! have pkg-config || ! pkg-config --exists fuse; then echo libfuse-dev; fi
    # fuse and fuse3 exclude each other; either one's fusermount serves.
    have fusermount || echo fuse3
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    [[ -e $("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ||
        echo python3-dev
}

# The same for programs that only tests call. The tests that need one skip without it.
missing_for_tests() {
    local program
    for program in git sqlite3 ffmpeg rsync make vim; do
        have "$program" || echo "$program"
    done
    have redis-server || have valkey-server || echo redis-server
}

# Installs the named Debian packages as root; otherwise says what to install.
install_packages() {
    local need="$1"
    shift
    (($#)) || return 0
    if ((EUID != 0)) || ! have apt-get; then
        [[ $need == wanted ]] && say "some tests will skip; missing: $*" && return 0
        die "please install: $*   (Debian: sudo apt-get install --no-install-recommends $*)"
    fi
    say "installing Debian packages: $*"
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    local install=("${apt[@]}" install -y --no-install-recommends "$@")
    # The package lists of a fresh machine are missing or too old: fetch them, once.
    { "${install[@]}" || { "${apt[@]}" update && "${install[@]}"; }; } >build/apt.log 2>&1 ||
        die_with build/apt.log "apt-get failed"
}

debian_packages() {
    local missing
    mapfile -t missing < <(missing_for_build)
    install_packages needed "${missing[@]}"
}

debian_test_packages() {
    local missing
    mapfile -t missing < <(missing_for_tests)
    install_packages wanted "${missing[@]}"
}

# --- .venv and the extension ---------------------------------------------------------------------

make_venv() {
    "$(host_python)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
        die "lucid needs Python 3.10 to 3.13; LUCID_PYTHON names another interpreter"
    if [[ ! -x $PY ]]; then
        say "making $VENV"
        "$(host_python)" -m venv "$VENV"
    fi
}

# What the installed packages follow from. Moving the directory makes them stale too.
environment_id() {
    { pwd -P && "$PY" -VV && cat pyproject.toml; } | sha256sum
}

install_environment() {
    local id
    id=$(environment_id)
    [[ -e $VENV/.environment && $(<"$VENV/.environment") == "$id" ]] && return 0
    debian_packages
    say "installing packages into $VENV"
    local pip=("$PY" -m pip -qq --disable-pip-version-check)
    "${pip[@]}" install 'setuptools>=77' 'cython>=3.1' wheel
    ENGINE_SKIP=1 "${pip[@]}" install --no-build-isolation --editable '.[test,bench]'
    printf '%s\n' "$id" >"$VENV/.environment"
}

# `find` does not follow the symlink lucid/engine.
sources() { find engine lucid -name '*.py[x]' -o -name '*.px[di]' -o -name '*.h'; }

# True when a source is newer than the last build, or a module is not built at all.
extension_is_stale() {
    [[ -e $VENV/.extension && ! setup.py -nt $VENV/.extension ]] || return 0
    local source built
    while read -r source; do
        [[ ! $source -nt $VENV/.extension ]] || return 0
        [[ $source == *.pyx ]] || continue
        built=("${source%.pyx}".*.so)
        [[ -e ${built[0]} ]] || return 0
    done < <(sources)
    return 1
}

build_extension() {
    extension_is_stale || return 0
    debian_packages
    say "building the extension"
    local force=()
    [[ $VENV/.extension -nt setup.py ]] || force=(--force)
    touch "$VENV/.extension.began"
    "$PY" setup.py -q build_ext --inplace "${force[@]}" >build/extension.log 2>&1 ||
        die_with build/extension.log "the extension does not build"
    grep -E 'warning|performance hint' build/extension.log >&2 || true
    # The time when the build began: what was saved meanwhile is stale.
    mv "$VENV/.extension.began" "$VENV/.extension"
}

build() {
    lock
    if [[ ! -x $PY ]]; then
        debian_packages
        make_venv
    fi
    install_environment
    build_extension
    unlock
}

# --- Tests ---------------------------------------------------------------------------------------

# Mount points below a directory, deepest first.
mounts_under() {
    awk -v root="$1/" 'index($5, root) == 1 { gsub(/\\040/, " ", $5); print $5 }' \
        /proc/self/mountinfo | sort -r
}

# Unmounts what is left below a directory; false when there was something.
sweep() {
    local point left=0
    while read -r point; do
        say "left mounted: $point"
        fusermount -u -z "$point" || umount -l "$point" || true
        left=1
    done < <(mounts_under "$1")
    return $left
}

# Directories of test runs that died. Those of runs still going on are left alone.
sweep_dead_runs() {
    local root
    for root in "$TEST_ROOTS".*; do
        [[ -d $root ]] || continue
        if ! kill -0 "${root##*.}" 2>/dev/null; then
            sweep "$root" || true
            rm -rf --one-file-system "$root"
        fi
    done
}

run_tests() {
    lock
    debian_test_packages
    unlock
    if names_tests "$@"; then
        in_test_root "$PY" -m pytest "$@"
    else
        in_test_root test_in_halves "$@"
    fi
}

# True when an argument is a file, a directory, or one test of a file.
names_tests() {
    local argument
    for argument in "$@"; do
        [[ ! -e ${argument%%::*} ]] || return 0
    done
    return 1
}

# The whole suite as two processes side by side: it waits more than it computes. What the second
# one says comes after the first has ended.
test_in_halves() {
    local half=(tests/fault tests/golden tests/hostile tests/local tests/meta tests/model)
    half+=(tests/mount tests/sync)
    local log=build/tests-second-half.log status=0 other_status=0
    local first="$TMPDIR/1" second="$TMPDIR/2"
    mkdir "$first" "$second"
    TMPDIR="$second" PYTEST_DEBUG_TEMPROOT="$second" \
        "$PY" -m pytest -o cache_dir=.pytest_cache/second "${half[@]}" "$@" >"$log" 2>&1 &
    local other=$!
    TMPDIR="$first" PYTEST_DEBUG_TEMPROOT="$first" \
        "$PY" -m pytest tests "${half[@]/#/--ignore=}" "$@" || status=$?
    wait "$other" || other_status=$?
    printf -- '-- the second half: %s\n' "${half[*]}"
    cat "$log"
    ((status)) || status=$other_status
    return "$status"
}

run_soak() { in_test_root "$PY" -m tests.soak "$@"; }

# Runs a command with a temporary directory of its own; fails when that leaves a mount.
in_test_root() {
    lock
    sweep_dead_runs
    unlock
    local root="$TEST_ROOTS.$$" status=0
    mkdir -m 700 "$root"
    TMPDIR="$root" PYTEST_DEBUG_TEMPROOT="$root" "$@" || status=$?
    if ! sweep "$root"; then
        say "the tests left mounts behind (unmounted now)"
        ((status)) || status=1
    fi
    rm -rf --one-file-system "$root"
    return "$status"
}

# --- The other verbs -----------------------------------------------------------------------------

run_check() {
    local failed=()
    step() {
        local name="$1"
        shift
        printf -- '-- %s\n' "$name"
        "$@" || failed+=("$name")
    }
    step "ruff check" "$PY" -m ruff check .
    step "ruff format" "$PY" -m ruff format --check .
    step "mypy" "$PY" -m mypy
    step "imports" "$VENV/bin/lint-imports" --no-logo
    step "stubtest" run_stubtest
    step "shellcheck" "$VENV/bin/shellcheck" build.sh .ci/run tests/engine/*.sh
    ((${#failed[@]} == 0)) || die "check failed: ${failed[*]}"
    printf 'check: all well\n'
}

run_stubtest() {
    local stubs modules=()
    for stubs in engine/*.pyi lucid/mount/*.pyi; do
        [[ -e $stubs ]] || continue
        stubs=${stubs%.pyi}
        stubs=${stubs/#engine\//lucid/engine/}
        modules+=("${stubs//\//.}")
    done
    ((${#modules[@]})) || return 0
    "$PY" -m mypy.stubtest --concise --mypy-config-file pyproject.toml \
        --ignore-disjoint-bases --ignore-unused-allowlist \
        --allowlist tests/tidy/stubtest-allowlist.txt "${modules[@]}"
}

# A tree of its own, so that it never gets in the way of the build in place.
run_debug() {
    lock
    local options=(--build-base build/debug-objects --build-lib build/debug)
    ENGINE_DEBUG=1 "$PY" setup.py -q build "${options[@]}" \
        >build/debug.log 2>&1 || die_with build/debug.log "the debug engine does not build"
    unlock
    (($#)) || set -- tests/engine
    PYTHONPATH="$PWD/build/debug" run_tests -o "pythonpath=build/debug ." "$@"
}

run_wheel() {
    lock
    rm -rf dist build/wheel-venv
    "$PY" -m build --no-isolation --outdir dist . >build/wheel.log 2>&1 ||
        die_with build/wheel.log "the wheel does not build"
    "$PY" packaging/look_through.py dist/*.tar.gz dist/*.whl
    "$PY" -m venv build/wheel-venv
    build/wheel-venv/bin/python -m pip -qq --disable-pip-version-check install dist/*.whl
    (cd / && "$OLDPWD/build/wheel-venv/bin/lucid" --version)
    rm -rf build/wheel-venv
    ls -l dist
    unlock
}

run_script() {
    local script="$1"
    shift
    [[ -e $script ]] || die "$script is not there"
    "$PY" "$script" "$@"
}

main() {
    local verb="${1:-build}"
    (($#)) && shift
    case "$verb" in
        build) build ;;
        # No `build && ...` here: inside of such a list, `set -e` would not hold.
        test) build; run_tests "$@" ;;
        check) build; run_check ;;
        soak) build; run_soak "$@" ;;
        hostile) build; LUCID_ON_S3=1 run_tests tests/hostile "$@" ;;
        debug) build; run_debug "$@" ;;
        memcheck) build; tests/engine/memcheck.sh "$@" ;;
        demo) build; run_script bench/demo.py "$@" ;;
        bench) build; "$PY" -m bench "$@" ;;
        wheel) build; run_wheel ;;
        clean) rm -rf build dist engine/*.so lucid/mount/*.so "$VENV/.extension" ;;
        help | -h | --help) usage ;;
        *) usage >&2 && die "no such verb: $verb" ;;
    esac
}

main "$@"
