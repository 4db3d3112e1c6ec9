#!/bin/bash
# Runs in the machine: carries out what the tests ask through the second console, a number and a base64
# command a line, and answers with the number, the exit code, stdout and stderr.
exec 3<>/dev/hvc0
stty raw -echo <&3
while :; do
    read -r number line <&3 || { sleep 0.3; continue; }      # nobody is at the other end yet
    bash -c "$(base64 -d <<<"$line")" >/run/agent.out 2>/run/agent.err </dev/null
    printf '%s %s %s. %s.\n' "$number" $? "$(base64 -w0 /run/agent.out)" "$(base64 -w0 /run/agent.err)" >&3
done
