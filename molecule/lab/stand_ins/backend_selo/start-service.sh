#!/bin/bash
# The unit's main process: a shell that reads both env files and starts the server as its child.
set -euo pipefail
IFS=$'\n\t'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

for file in /etc/selo-ai/environment "$here/backend/.env"; do
  if [ -r "$file" ]; then
    set -a
    # shellcheck disable=SC1090
    source "$file"
    set +a
  fi
done

# The real one installs packages and looks for models before it starts.
sleep "$(awk -F= '/^LAB_START_S=/ {s = $2} /^LAB_SPEEDUP=/ {by = $2} END {print s / (by ? by : 1)}' /etc/lab/options)"

cd "$here/backend"
python3 main.py &
# Waits for its child to the end: a systemd that runs in a container with cgroup v1 does not see an orphan end.
trap 'kill %1 2>/dev/null || true; wait || true; exit 0' TERM INT
wait %1
