"""Found hosts: where Ollama's log goes, and what it says."""

from __future__ import annotations

from tests.integration.found.condition import Found

DROP_INS = "/etc/systemd/system/ollama.service.d"
RESTARTED = (
    "systemctl daemon-reload; systemctl restart ollama; "
    "until curl -fsm 1 http://127.0.0.1:11434/api/version; do sleep 0.2; done"
)
FILE = "/var/log/ollama/ollama.log"
OWN_DIRECTORY = "install -d -o ollama -g ollama /var/log/ollama"


def drop_in(*lines: str) -> str:
    """The owner's drop-in, and Ollama started with it."""
    text = "\\n".join(["[Service]", *lines, ""])
    return f"{OWN_DIRECTORY}; mkdir -p {DROP_INS}; printf '{text}' > {DROP_INS}/20-log.conf; {RESTARTED}"


def journald(*lines: str) -> str:
    """journald's own configuration, and journald and Ollama started with it."""
    text = "\\n".join(["[Journal]", *lines, ""])
    return (
        f"mkdir -p /etc/systemd/journald.conf.d; printf '{text}' > /etc/systemd/journald.conf.d/20-owner.conf\n"
        f"systemctl restart systemd-journald; {RESTARTED}"
    )


def asked(path: str) -> str:
    """A client that asks for a path that is not there, again and again while the load runs."""
    return f"nohup sh -c 'while sleep 0.5; do curl -sm 2 \"http://127.0.0.1:11434{path}\"; done' >/dev/null 2>&1 &"


MAN = "https://www.freedesktop.org/software/systemd/man/latest/"


def while_it_loads(script: str) -> str:
    """A script that runs again and again, every two seconds."""
    return f"\nnohup sh -c 'while sleep 2; do {script}; done' >/dev/null 2>&1 &"


ROWS: list[Found] = [
    Found(
        "log_in_a_file",
        drop_in(f"StandardOutput=append:{FILE}", "StandardError=inherit"),
        "pass",
        (f"0 fatal lines in {FILE}",),
        "ollama/ollama#11316",
        short=True,
    ),
    Found(
        "log_in_a_file_that_was_rotated",
        drop_in(f"StandardOutput=append:{FILE}", f"StandardError=append:{FILE}")
        + f"; mv {FILE} {FILE}.1; install -o ollama -m 0644 /dev/null {FILE}",
        "pass",
        (f"0 fatal lines in {FILE}",),
        "ollama/ollama#10136",
    ),
    Found(
        "log_in_a_file_with_old_failures",
        f"{OWN_DIRECTORY}; yes 'CUDA error: out of memory' | head -n 200000 > {FILE}; chown ollama {FILE}\n"
        + drop_in(f"StandardOutput=file:{FILE}"),
        "pass",
        (f"0 fatal lines in {FILE}",),
        "systemd/systemd#8983",
    ),
    Found(
        "log_redirected_by_a_shell",
        drop_in("ExecStart=", f"ExecStart=/bin/sh -c '\\''/usr/local/bin/ollama serve >> {FILE} 2>&1'\\''"),
        "pass",
        (f"0 fatal lines in {FILE}",),
        "ollama/ollama#11316",
    ),
    Found(
        "log_nowhere",
        drop_in("StandardOutput=null", "StandardError=null"),
        "pass",
        ("Ollama's log not read", "standard error goes to /dev/null", "StandardError=journal"),
        "rfjakob/earlyoom#29",
        short=True,
    ),
    Found(
        "log_without_standard_error",
        drop_in("StandardError=null"),
        "pass",
        ("Ollama's log not read", "standard error goes to /dev/null"),
        "ollama/ollama#10136",
    ),
    Found(
        "log_on_a_terminal",
        drop_in("StandardOutput=tty", "TTYPath=/dev/ptmx"),
        "pass",
        ("Ollama's log not read", "standard error goes to /dev/p"),
        "ollama/ollama#10136",
    ),
    Found(
        "log_through_a_pipe_into_a_file",
        drop_in(
            "ExecStart=", f"ExecStart=/bin/sh -c '\\''/usr/local/bin/ollama serve 2>&1 | tee {FILE} >/dev/null'\\''"
        ),
        "pass",
        ("Ollama's log not read", "the journal holds no line"),
        "ollama/ollama#11316",
    ),
    Found(
        "log_level_of_the_unit",
        drop_in("LogLevelMax=warning"),
        "pass",
        ("Ollama's log not read", "LogLevelMax="),
        "systemd/systemd#30320",
    ),
    Found(
        "journald_stores_nothing",
        journald("Storage=none"),
        "pass",
        ("Ollama's log not read", "the journal holds no line", "Storage="),
        "ollama/ollama#967",
    ),
    Found(
        "journald_stores_only_warnings",
        journald("MaxLevelStore=warning"),
        "pass",
        ("Ollama's log not read", "MaxLevelStore="),
        "hashbang/shell-etc#162",
    ),
    Found(
        "journald_drops_what_is_too_much",
        drop_in("LogRateLimitIntervalSec=30s", "LogRateLimitBurst=20"),
        "pass",
        ("not all was read", "LogRateLimitIntervalSec"),
        "kubernetes/kubernetes#41435",
    ),
    Found(
        "journal_in_a_namespace",
        drop_in("LogNamespace=ai"),
        "pass",
        ("0 fatal lines in the journal",),
        "systemd/systemd#17062",
    ),
    Found(
        "journal_was_vacuumed",
        "journalctl --rotate; sleep 1; journalctl --vacuum-time=1s",
        "pass",
        ("0 fatal lines in the journal",),
        "ollama/ollama#5143",
    ),
    Found(
        "client_asks_for_failures",
        asked("/oom-kill/cudaMalloc%20failed:%20out%20of%20memory"),
        "pass",
        ("0 fatal lines in the journal",),
        "gin-gonic/gin#43",
        short=True,
    ),
    Found(
        "client_asks_for_layers",
        asked("/load_tensors:%20offloaded%200/33%20layers%20to%20GPU"),
        "pass",
        ("0 fatal lines in the journal",),
        "gin-gonic/gin#43",
    ),
    Found(
        "log_of_standard_error_in_a_file",
        drop_in(f"StandardError=append:{FILE}"),
        "pass",
        (f"0 fatal lines in {FILE}",),
        "ollama/ollama#10136",
    ),
    Found(
        "log_of_standard_output_nowhere",
        drop_in("StandardOutput=null", "StandardError=journal"),
        "pass",
        ("0 fatal lines in the journal",),
        "ollama/ollama#10136",
    ),
    Found(
        "log_to_syslog",
        drop_in("StandardOutput=syslog", "StandardError=syslog"),
        "pass",
        ("0 fatal lines in the journal",),
        f"{MAN}systemd.exec.html",
    ),
    Found(
        "log_in_the_kernels_buffer",
        drop_in("StandardOutput=kmsg", "StandardError=kmsg"),
        "pass",
        ("0 fatal lines in the journal",),
        f"{MAN}systemd.exec.html",
    ),
    Found(
        "log_file_behind_a_link",
        f"{OWN_DIRECTORY}; install -o ollama /dev/null /var/log/ollama/real.log; ln -s real.log {FILE}\n"
        + drop_in(f"StandardOutput=append:{FILE}"),
        "pass",
        ("0 fatal lines in /var/log/ollama/real.log",),
        "ollama/ollama#11316",
    ),
    Found(
        "log_file_cut_while_it_loads",
        drop_in(f"StandardOutput=append:{FILE}") + while_it_loads(f"cp {FILE} {FILE}.1; : > {FILE}"),
        "pass",
        ("Ollama's log was not read",),  # as a whole, or at all: whatever the last cut has left
        "https://man7.org/linux/man-pages/man8/logrotate.8.html",
    ),
    Found(
        "log_file_compressed_while_it_loads",
        drop_in(f"StandardOutput=append:{FILE}") + while_it_loads(f"mv {FILE} {FILE}.1 && gzip -f {FILE}.1"),
        "pass",
        (f"0 fatal lines in {FILE}.1 (deleted)",),
        "https://man7.org/linux/man-pages/man8/logrotate.8.html",
    ),
    Found(
        "journald_keeps_it_in_memory",
        journald("Storage=volatile"),
        "pass",
        ("0 fatal lines in the journal",),
        f"{MAN}journald.conf.html",
    ),
    Found(
        "journald_drops_what_is_too_much_of_anybody",
        journald("RateLimitIntervalSec=60s", "RateLimitBurst=40"),
        "pass",
        ("not all was read", "LogRateLimitIntervalSec"),
        "kubernetes/kubernetes#41435",
    ),
    Found(
        "log_filtered_by_the_unit",
        drop_in("LogFilterPatterns=~cudaMalloc"),
        "pass",
        ("not all was read", "LogFilterPatterns="),
        f"{MAN}systemd.exec.html",
        suite="trixie",
    ),
]
