#!/bin/bash
# Makes what the tests in tests/real need beside the binary: a Python environment and an Asterisk, both in
# the cache directory, both only if they are not there yet. Prints the Python to run the tests with.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
cache=${WATRUNK_CACHE:-$HOME/.cache/watrunk}
mkdir -p "$cache"

"$here/asterisk/build-tree.sh" "$cache/asterisk" >&2 &
tree=$!

# One environment per list of requirements: a changed pin makes a new one.
venv=$cache/python-$(sha256sum "$here/requirements.txt" | cut -c1-12)
(
    flock 9
    [ -e "$venv/.complete" ] && exit 0
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import sys, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null && break
    done
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --retries 5 -r "$here/requirements.txt" >&2
    touch "$venv/.complete"
) 9>"$cache/python.lock"
wait "$tree"
echo "$venv/bin/python"
