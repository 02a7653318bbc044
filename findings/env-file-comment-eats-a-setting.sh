#!/usr/bin/env bash
# systemd 252 (Debian 12) and 257 (Debian 13): a comment in an environment file that ends in a backslash takes the next
# line with it, up to 253; since 254 it does not. A file that is valid on both sets a variable more after the upgrade.
# python-dotenv 1.2.1 reads the line on both, so that a service that reads the file itself sees it all along.
# systemd's own reader of environment.d is run; EnvironmentFile= has the same one (src/basic/env-file.c).
# Needs mmdebstrap, and Python 3 with venv.
set -euo pipefail
temp=$(mktemp -d)
trap 'rm -r "$temp"' EXIT
cd "$temp"

mkdir -p config/environment.d
cat >config/environment.d/ollama.conf <<'END'
# the models are on the share \\files\models\
OLLAMA_NUM_PARALLEL=1
OLLAMA_MAX_LOADED_MODELS=1
END
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check python-dotenv==1.2.1
{
  for suite in bookworm trixie; do
    # Only unpacked: nothing of it is installed or started.
    mmdebstrap --quiet --variant=extract --include=systemd "$suite" "root-$suite"
    root=$temp/root-$suite
    libraries=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
    systemd=$(echo "$root"/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-*.so "$root"/lib/systemd/libsystemd-shared-*.so |
      grep -o 'shared-2[0-9]*' | sort -u)
    echo "systemd ${systemd#shared-}"
    XDG_CONFIG_HOME=$temp/config "$(ls "$root"/lib64/ld-linux-x86-64.so.2 "$root"/usr/lib64/ld-linux-x86-64.so.2 2>/dev/null | head -n 1)" \
      --library-path "$libraries:$root/usr/lib/x86_64-linux-gnu/systemd:$root/lib/systemd" \
      "$root/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator" | grep ^OLLAMA
  done
  echo "python-dotenv 1.2.1"
  venv/bin/python -c 'import dotenv; [print(*pair, sep="=") for pair in dotenv.dotenv_values("config/environment.d/ollama.conf").items()]'
} >seen
cat >expected <<'END'
systemd 252
OLLAMA_MAX_LOADED_MODELS=1
systemd 257
OLLAMA_NUM_PARALLEL=1
OLLAMA_MAX_LOADED_MODELS=1
python-dotenv 1.2.1
OLLAMA_NUM_PARALLEL=1
OLLAMA_MAX_LOADED_MODELS=1
END
cat seen
diff expected seen
