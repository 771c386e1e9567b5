# Installs requirements.txt into .venv, the first time only. Every script sources this file.
# The variable PYTHON names the Python to use. The default is python3 or python, whichever is first 3.10 or newer.
[ -n "$BASH_VERSION" ] || { echo "error: bash is needed: bash setup.sh" >&2; return 1 2>/dev/null || exit 1; }

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

_fail() { echo "error: $*" >&2; exit 1; }

_find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo "$candidate"; return; }
    done
    return 1
}

_install() {
    local python log=.venv/install.log
    python=$(_find_python) || _fail "no Python 3.10 or newer found as ${PYTHON:-python3 or python}; install one, or name yours: PYTHON=/path/to/python3"
    echo "Setting up .venv with $("$python" --version); this happens once and takes a few minutes." >&2
    "$python" -m venv .venv >/dev/null 2>&1 ||
        { rm -rf .venv; _fail "$python has no working venv module (Debian, Ubuntu: apt install python3-venv)"; }
    echo "Installing requirements.txt (log: $log)" >&2
    .venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt >"$log" 2>&1 ||
        _fail "the packages could not be installed: $(grep -m1 -iE '^error' "$log" || echo "see $log"). Is there a network? The full log: $log"
    cp requirements.txt .venv/installed.txt
}

# Several scripts may start at once, for example as an array of batch jobs: one installs, the others wait.
if ! cmp -s requirements.txt .venv/installed.txt; then
    if command -v flock >/dev/null; then
        exec 9>.setup.lock && flock 9
        cmp -s requirements.txt .venv/installed.txt || _install
        exec 9>&-
    else
        _install
    fi
fi
