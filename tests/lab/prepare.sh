#!/bin/bash
# Makes what the tests in tests/real need beside the binary: a Python environment, one more with Pipecat for the tests of
# voice agents, and the real SIP programs; all in the cache directory, and only what is not there yet. Prints the Python
# to run the tests with.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
cache=${WATRUNK_CACHE:-$HOME/.cache/watrunk}
mkdir -p "$cache"

"$here/build-tree.sh" "$cache/peers" >&2 &
tree=$!

# One environment per list of requirements: a changed pin makes a new one.
environment() {
    local list=$here/$2 venv
    venv=$cache/$1-$(sha256sum "$list" | cut -c1-12)
    (
        flock 9
        [ -e "$venv/.complete" ] && exit 0
        for python in python3 /usr/bin/python3; do
            "$python" -c 'import sys, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null && break
        done
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install -q --disable-pip-version-check --retries 5 -r "$list" >&2
        touch "$venv/.complete"
    ) 9>"$cache/$1.lock"
    echo "$venv/bin/python"
}
environment pipecat pipecat.txt >/dev/null &
bot=$!
python=$(environment python requirements.txt)
wait "$bot"
wait "$tree"
echo "$python"
