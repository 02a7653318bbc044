"""Found hosts: who serves Ollama's API, and who else holds memory."""

from __future__ import annotations

from tests.integration.found.condition import Found
from tests.integration.found.rows.units import RELOAD, drop_in

CONTAINER = "3f1c2ab90d5e" + "0" * 52
MODEL = "llama3.2:3b-instruct-q8_0"
FAQ = "https://raw.githubusercontent.com/ollama/ollama/main/docs/faq.mdx"
ANSWERS = "curl --silent --fail --retry 30 --retry-delay 1 --retry-connrefused"
START_S = 5
OURS_STOPPED = "systemctl disable --quiet --now ollama"


def another(name: str, *options: str, port: int = 11434) -> str:
    """A second server of Ollama's user, as `name`, a unit or a scope of the system."""
    words = " ".join(["systemd-run", "--quiet", f"--unit={name}", "--uid=ollama", *options])
    serve = f"env HOME=/usr/share/ollama OLLAMA_HOST=127.0.0.1:{port} /usr/local/bin/ollama serve"
    started = f"{words} {serve}"
    if "--scope" in options:
        started = f"setsid {started} </dev/null >/dev/null 2>&1 &"
    return f"{started}\n{ANSWERS} --output /dev/null http://127.0.0.1:{port}/api/version"


def loaded(port: int = 11434) -> str:
    body = f'{{"model": "{MODEL}", "prompt": "Hello", "stream": false}}'
    return f"{ANSWERS} --output /dev/null --data '{body}' http://127.0.0.1:{port}/api/generate"


BACKENDS = "/etc/systemd/system/selo-backend.service.d"
# systemd listens at Ollama's port and starts it with the first request, as the units of ollama/ollama#6185 do.
PROXIED = f"""
{drop_in("Environment=OLLAMA_HOST=127.0.0.1:11500")}
printf '[Socket]\\nListenStream=127.0.0.1:11434\\n' > /etc/systemd/system/ollama-proxy.socket
printf '[Unit]\\nRequires=ollama.service\\nAfter=ollama.service\\n[Service]\\n%s\\n' \\
  ExecStart='/lib/systemd/systemd-socket-proxyd 127.0.0.1:11500' > /etc/systemd/system/ollama-proxy.service
{RELOAD}
systemctl stop ollama
systemctl start ollama-proxy.socket
until curl --silent --fail --output /dev/null http://127.0.0.1:11434/api/version; do sleep 0.5; done
"""

ROWS: list[Found] = [
    Found(
        "another_unit_answers",
        f"{OURS_STOPPED}\n{another('other-ollama')}",
        "refused",
        ("the unit other-ollama.service", "gpu_memory_ollama.unit=other-ollama.service"),
        "ollama/ollama#707",
        short=True,
    ),
    Found(
        "a_container_answers_and_the_unit_only_started_it",
        f"{OURS_STOPPED}\n{drop_in('ExecStart=', 'ExecStart=/bin/sleep infinity')}\n{RELOAD}\nsystemctl start ollama\n"
        f"{another(f'docker-{CONTAINER}.scope', '--scope')}",
        "refused",
        ("the container docker 3f1c2ab90d5e", "not served yet"),
        "ollama/ollama#4530",
        short=True,
    ),
    Found(
        "the_unit_listens_at_another_port",
        f"{drop_in('Environment=OLLAMA_HOST=127.0.0.1:11500')}\n{RELOAD}\nsystemctl restart ollama\n"
        f"{ANSWERS} --output /dev/null http://127.0.0.1:11500/api/version",
        "refused",
        ("listens at http://127.0.0.1:11500", "gpu_memory_ollama.url=http://127.0.0.1:11500"),
        FAQ,
    ),
    Found(
        "the_unit_does_not_start",
        "printf '#!/bin/sh\\necho Error: mkdir /data: permission denied >&2; exit 1\\n' > /usr/local/bin/mounted\n"
        f"chmod 0755 /usr/local/bin/mounted\n{drop_in('ExecStartPre=/usr/local/bin/mounted')}\n{RELOAD}\n"
        "systemctl restart ollama || true",
        "refused",
        ("mkdir /data: permission denied", "start ollama.service"),
        FAQ,
    ),
    Found(
        "a_server_that_crashed_once_hangs",
        f"systemctl kill --signal=KILL ollama; {ANSWERS} --output /dev/null http://127.0.0.1:11434/api/version\n"
        "began=$(systemctl show ollama --property ActiveEnterTimestampMonotonic --value)\n"
        f"until [ $(($(cut -d. -f1 /proc/uptime) - began / 1000000)) -gt {START_S + 1} ]; do sleep 0.5; done\n"
        "systemctl kill --kill-whom=main --signal=STOP ollama",
        "refused",
        ("no complete answer within", "see why it does not answer, and restart ollama.service"),
        "ollama/ollama#1863",
        variables={"gpu_memory_ollama": {"timeout_s": START_S}},
        hidden=("does not come up",),
    ),
    Found(
        "a_unit_in_a_slice_of_its_own",
        f"{drop_in('Slice=gpu-llm.slice')}\n{RELOAD}\nsystemctl restart ollama\n"
        f"{ANSWERS} --output /dev/null http://127.0.0.1:11434/api/version",
        "pass",
        (),
        "https://manpages.ubuntu.com/manpages/jammy/man5/systemd.slice.5.html",
    ),
    Found(
        "a_second_ollama_holds_memory",
        f"{another('second-ollama', port=11500)}\n{loaded(11500)}",
        "refused",
        ("second-ollama.service", "planned layers", "stop it"),
        "ollama/ollama#707",
    ),
    Found(
        "a_runner_outlived_its_server",
        f"{drop_in('KillMode=process')}\n{RELOAD}\nsystemctl restart ollama\n{loaded()}\n"
        "systemctl kill --kill-whom=main --signal=KILL ollama\n"
        "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
        "refused",
        ("server is gone", "planned layers", "kill "),
        "https://manpages.ubuntu.com/manpages/xenial/man5/systemd.kill.5.html",
    ),
    # --- units that do not run ----------------------------------------------------------------------------------------
    Found(
        "ollama_is_stopped",
        "systemctl stop ollama",
        "refused",
        ("ollama.service is inactive", "start ollama.service"),
        "ollama/ollama#1352",
    ),
    Found(
        "ollama_is_disabled_but_runs",
        "systemctl disable --quiet ollama",
        "pass",
        (),
        "ollama/ollama#1352",
    ),
    Found(
        "the_backend_is_disabled_and_stopped",
        "systemctl disable --quiet --now selo-backend",
        "pass",
        ("selo-backend.service is inactive: an apply starts it",),
        "ollama/ollama#1352",
        backend="guide",
    ),
    Found(
        "the_backend_has_failed",
        f"{drop_in('ExecStartPre=/bin/false', 'Restart=no', directory=BACKENDS)}\n{RELOAD}\n"
        f"systemctl restart selo-backend || true; rm -r {BACKENDS}; {RELOAD}; systemctl is-failed selo-backend",
        "pass",
        ("selo-backend.service is failed: an apply starts it",),
        "https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html",
        backend="guide",
    ),
    Found(
        "the_backend_starts_over_and_over",
        f"{drop_in('ExecStartPre=/bin/false', 'RestartSec=30', directory=BACKENDS)}\n{RELOAD}\n"
        "systemctl restart selo-backend || true\n"
        "systemctl show selo-backend --property SubState | grep auto-restart",
        "rolled_back",
        ("selo-backend.service is starting, as it was found",),
        "https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html",
        backend="guide",
    ),
    Found(
        "systemd_listens_for_ollama",
        PROXIED,
        "refused",
        ("ollama-proxy.service", "gpu_memory_ollama.url"),
        "ollama/ollama#6185",
    ),
    Found(
        "systemd_listens_for_ollama_which_is_declared_where_it_listens",
        PROXIED,
        "pass",
        (),
        "ollama/ollama#6185",
        variables={"gpu_memory_ollama": {"url": "http://127.0.0.1:11500"}},
    ),
]
