#!/usr/bin/env bash
# journalctl 252 (Debian 12) and 257 (Debian 13): `--since=... --lines=3`, read as "the last three since then", gives the
# oldest three with 252 and the newest three with 257. With --reverse it is the newest on both. A program that asks for a
# busy unit's journal in this way has, on one of the two, read none of what just happened.
# Needs mmdebstrap. The journal is made of an export file, so that no system's own is read.
set -euo pipefail
temp=$(mktemp -d)
trap 'rm -r "$temp"' EXIT
cd "$temp"

for number in 1 2 3 4 5 6; do
  printf '__REALTIME_TIMESTAMP=170000000%s000000\n__MONOTONIC_TIMESTAMP=%s000000\n_BOOT_ID=%s\nMESSAGE=%s\n\n' \
    "$number" "$number" 0123456789abcdef0123456789abcdef "$number"
done >export
for suite in bookworm trixie; do
  # Only unpacked: nothing of it is installed or started.
  mmdebstrap --quiet --variant=extract --include=systemd,systemd-journal-remote "$suite" "root-$suite"
  root=$temp/root-$suite
  run() {
    "$(ls "$root"/lib64/ld-linux-x86-64.so.2 "$root"/usr/lib64/ld-linux-x86-64.so.2 2>/dev/null | head -n 1)" --library-path \
      "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu/systemd:$root/lib/systemd" "$@"
  }
  remote=$(find "$root" -path "*/lib/systemd/systemd-journal-remote" -type f)
  program=$(find "$root" -path "*/bin/journalctl" -type f)
  run "$remote" --output="$temp/$suite.journal" export >/dev/null 2>&1
  journalctl() { run "$program" --file="$temp/$suite.journal" --quiet --output=cat "$@" | xargs; }
  echo "$(run "$program" --version | sed -n 's/^systemd \([0-9]*\).*/\1/p'): $(journalctl --since=@1 --lines=3)," \
    "reversed $(journalctl --since=@1 --lines=3 --reverse)"
done >seen
cat >expected <<'END'
252: 1 2 3, reversed 6 5 4
257: 4 5 6, reversed 6 5 4
END
cat seen
diff expected seen
