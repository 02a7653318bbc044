# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading Ollama's log where it goes: the journal, a file that its standard error is, or nowhere.

Where it goes is read from the server's process, not from its unit: a wrapper may have redirected it.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import log_lines
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import quadlet, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, quadlets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_process
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import (
    commands,
    docker,
    held_path,
    service_properties,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import SystemClock, WallClock, slept_s

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Journal
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Unit

PROPERTIES = (
    "Id,ExecMainStartTimestamp,LogNamespace,LogFilterPatterns,LogRateLimitIntervalUSec,LogRateLimitBurst,DropInPaths,"
    f"ExecMainStartTimestampMonotonic,{host_read.PROCESS_PROPERTIES}"
)
# --all: journalctl leaves out what is longer than 4 KiB, as a server's whole configuration may be.
JOURNALCTL = ("journalctl", "--no-pager", "--quiet", "--all", "--output=json")
FIELDS = f"--output-fields={log_lines.FIELDS},_SYSTEMD_UNIT,_EXE,_UID,CONTAINER_NAME"
MOST_LINES = 50_000
SLEPT_S = 1.0  # less is how clocks are read one after the other
MOST_MESSAGES = 500  # of which a few are shown
FEW_LINES = 20  # among which is one of the server, whoever writes the same
MOST_BYTES = 16 * 1024 * 1024
JOURNAL = "the journal"
# What the owner has set for all units; journald's own default is far beyond what a load writes.
LIMIT = re.compile(rb"^\s*RateLimit(Interval(?:Sec)?|Burst)\s*=\s*(\S{1,32})\s*$", re.MULTILINE)
SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(us|ms|min|s|h)")
SECONDS_IN = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


class Sink(NamedTuple):
    """Where a server's standard error goes: `file` is a path to open it by; `problem` says why it cannot be read.

    `piped`: it goes to a program, which may log what it is given. `container`: to Docker, of a service of Compose.
    """

    where: str = JOURNAL
    file: str | None = None
    problem: str | None = None
    piped: bool = False
    container: str | None = None


class Server(NamedTuple):
    """Whose lines of the journal count: those that come by the connection with which a server of this unit writes.

    A process may have been given it, as runners are; who opens one of its own, or uses syslog, as logger and
    systemd-cat do, is somebody else. `piped`: the server writes to a program that logs for it, so that all count.
    `container`: it is that of a Quadlet, whose monitor (`program`) logs for it, as root and with the container's name.
    """

    unit: str
    pids: frozenset[str] = frozenset()
    program: str | None = None
    piped: bool = False
    container: str | None = None

    def of(self, rows: Iterable[Mapping[str, str]]) -> list[tuple[float, str]]:
        """The rows that are the server's, or systemd's about it, in order."""
        whole = log_lines.WholeLines()
        rows = [row for row in rows if whole.begins(row)]
        known = {row.get("_STREAM_ID") for row in rows if row.get("_PID") in self.pids}
        known |= {row.get("_STREAM_ID") for row in rows if self.program and _file(row.get("_EXE")) == self.program}
        entries = (log_lines.entry_of(row) for row in rows if self._counts(row, known - {None}))
        return [entry for entry in entries if entry is not None]

    def _counts(self, row: Mapping[str, str], known: Collection[str | None]) -> bool:
        if row.get("_PID") == "1":
            return True
        if self.container:
            by_monitor = row.get("_UID") == "0" and self.program in (None, _file(row.get("_EXE")))
            return by_monitor and row.get("CONTAINER_NAME") == self.container
        if row.get("_SYSTEMD_UNIT") != self.unit:
            return False
        if self.piped or not self.pids:
            return self.piped or row.get("_TRANSPORT") == "stdout"
        return row.get("_STREAM_ID") in known


class Times(NamedTuple):
    """When what is read was written: since when the server runs, how journalctl is asked, by which clock it is told.

    `clock`: None where each row has the time that was noted with it. `set_back_at`: before the host's was set back.
    """

    began: float | None
    options: Sequence[str]
    clock: WallClock | None
    set_back_at: float | None

    def of(self, row: dict[str, str]) -> dict[str, str]:
        """A row with its time."""
        monotonic = row.get("__MONOTONIC_TIMESTAMP", "")
        boot = self.clock and self.clock.boot.replace("-", "")
        if not self.clock or row.get("_BOOT_ID") != boot or not log_lines.REALTIME.fullmatch(monotonic):
            return row
        return {**row, "__REALTIME_TIMESTAMP": f"{max(0.0, self.clock.at(int(monotonic) / 1e6)) * 1e6:.0f}"}


def _times(properties: Mapping[str, str], since: float | None, clock: WallClock | None) -> Times:
    now = SystemClock().wall()
    if not clock or clock.boot != now.boot:
        clock = now if slept_s() < SLEPT_S else None
    noted = began = unit_text.moment(properties.get("ExecMainStartTimestamp", ""))
    monotonic = properties.get("ExecMainStartTimestampMonotonic", "")
    if clock and noted and monotonic.isdigit():
        began = clock.at(int(monotonic) / 1e6)
    set_forward_s = now.ahead_s - clock.ahead_s if clock else 0.0
    begins = [moment for moment in (began, since) if moment]
    # journalctl goes by what was noted, and from the newest row back to the first that is older.
    oldest = min(filter(None, (noted, *begins, *(moment + set_forward_s for moment in begins))), default=None)
    namespace = properties.get("LogNamespace")
    options = [f"--namespace=+{namespace}"] if namespace else []
    options += [f"--since=@{int(oldest)}"] if oldest else ["--boot"]
    return Times(began, options, clock, since if set_forward_s < -SLEPT_S else None)


def read(unit: str, since: float | None, mask: host_read.Mask, clock: WallClock | None = None) -> Journal:
    """Facts (`log_lines.parse`) of the log of a unit's server and of the kernel since `since` (Unix time).

    Without `since`, since the unit's last start. `clock`: how the host's went at `since`, by which all times are told,
    whatever it was set to since; by default as it goes now, but where the host was suspended, which no row tells of.
    `server_config`, `server_at`, `discovered` and `last_load` are always
    those of the server that runs, since what it does may be older than `since`. `log` says what was read: `where` (the
    journal, or a file's path), `problem` (why it could not be read, or None), `dropped` (messages that journald did not
    keep; an estimate is at least 1), `cut` (whether lines are missing since the log begins later, or is too long),
    `filtered` (whether the unit leaves lines out) and `lines`.
    """
    properties = service_properties.of(unit, PROPERTIES)
    unit = properties.get("Id") or unit  # the journal knows no alias
    of_unit, made_of = host_read.as_unit(unit, properties), quadlets.of(unit, properties)
    serving = server_process.server_of(of_unit)
    times = _times(properties, since, clock)
    began = times.began
    sink = _sink_of_container(of_unit["main_pid"], sink_of(serving)) if made_of else sink_of(serving)
    if compose.is_one(unit) and not sink.file:  # a pipe or, with `tty: true`, a terminal
        sink = Sink("docker logs", container=unit)
    server = _server(of_unit, serving, sink, made_of)
    about = _journal_lines(
        ["--grep", f"{log_lines.KERNEL.pattern}|Suppressed", "_TRANSPORT=kernel", "+", *log_lines.DROPPED_ID], times
    )
    group = properties.get("ControlGroup") or ""
    kernel = [line for line in about if line[1].startswith(log_lines.BY_KERNEL) and log_lines.concerns(line[1], group)]
    begin = min(filter(None, (began, since)), default=None)
    own, long, sink = _own_lines(sink, begin, _matches(unit, made_of), times, server)
    lines = sorted([*own, *kernel], key=lambda line: line[0])
    whole = log_lines.parse((line for line in lines if line[0] >= (began or 0)), mask)
    if long and sink.where == JOURNAL and whole["server_config"] is None:
        config = [*_matches(unit, made_of), "--grep", 'msg="server config"']
        start = log_lines.parse(_journal_lines(config, times, server, most=FEW_LINES))
        whole["server_config"], whole["server_at"] = start["server_config"], start["server_at"]
    server_at = whole["server_at"] or began
    window = log_lines.parse((line for line in lines if line[0] >= since), mask) if since else whole
    first = min((at for at, _text in own), default=None)
    begins_late = first is not None and first > (since or 0) and whole["server_config"] is None
    missing = first is not None and long and first > (since or 0)
    dropped = sum(log_lines.dropped(text, unit) for at, text in about if at >= (since or 0))
    return {
        **window,
        "server_config": whole["server_config"],
        "server_at": server_at,
        "discovered": whole["discovered"],
        "last_load": next((load for load in reversed(whole["loads"]) if load["at"] >= (server_at or 0)), None),
        "log": {
            "where": sink.where,
            "problem": sink.problem or (None if whole["lines"] else _nothing(sink.where, unit)),
            "dropped": dropped
            or (0 if sink.container else _surely_limited(properties, [at for at, _text in own if at >= (since or 0)])),
            "cut": missing or begins_late,
            "filtered": bool(properties.get("LogFilterPatterns")) and not sink.file,
            "lines": sum(at >= (since or 0) for at, text in own if not text.startswith(log_lines.BY_SYSTEMD)),
        },
        "clock": {"boot": times.clock.boot, "ahead_s": times.clock.ahead_s} if times.clock else None,
    }


def _file(program: object) -> str:
    """A process' program by its path, also where an upgrade has put another one there since."""
    return str(program or "").removesuffix(" (deleted)")


def since(unit: str, monotonic_s: float) -> list[str]:
    """The newest messages of a unit and, if it is of a container, of that, since a moment of CLOCK_MONOTONIC."""
    if compose.is_one(unit):
        return [text for _at, text in of_container(unit, SystemClock().wall().at(monotonic_s), MOST_MESSAGES)[0]]
    times = Times(None, ["--boot"], WallClock(SystemClock().wall().boot, 0.0), None)
    rows = _journal_rows(_matches(unit, quadlets.read(unit)), times, most=MOST_MESSAGES)
    return [row.get("MESSAGE", "") for row in rows if log_lines.written_at(row) >= monotonic_s]


def _matches(unit: str, made_of: quadlets.Quadlet | None) -> list[str]:
    """The rows of the journal of a unit, as words for journalctl."""
    name = made_of.command.name if made_of else None
    if not name:
        return ["--unit", unit]
    return [f"_SYSTEMD_UNIT={unit}", "+", "_PID=1", f"UNIT={unit}", "+", f"CONTAINER_NAME={name}", "_UID=0"]


def _server(unit: Unit, serving: int | None, sink: Sink, made_of: quadlets.Quadlet | None) -> Server:
    """The server that runs, if any, as the journal knows it."""
    main, container = unit["main_pid"], made_of.command.name if made_of and sink.piped else None
    if not serving:
        return Server(unit["name"], container=made_of.command.name if made_of else None)
    try:
        program = _file(os.readlink(f"/proc/{main if container else serving}/exe"))
    except OSError:
        program = None
    return Server(unit["name"], frozenset(map(str, {serving, main} - {0})), program, sink.piped, container)


def _sink_of_container(conmon: int, sink: Sink) -> Sink:
    """Where Podman's monitor of a container writes what it is given by a pipe."""
    if not sink.piped:
        return sink
    driver = quadlet.log_driver(host_read.command_line(conmon))
    if driver == quadlet.JOURNALD:
        return sink
    return Sink(driver, problem=f"the container's log goes to {driver}; LogDriver=journald keeps it")


def _own_lines(
    sink: Sink, begin: float | None, journal: list[str], times: Times, server: Server
) -> tuple[list[tuple[float, str]], bool, Sink]:
    """A server's lines since `begin`, whether there are more than those, and the sink with what is wrong of it."""
    if sink.container:
        lines, problem = of_container(sink.container, begin, MOST_LINES, times.set_back_at)
        return lines, len(lines) >= MOST_LINES, sink._replace(problem=problem)
    if not sink.file:
        rows = _journal_rows(journal, times)
        return server.of(rows), len(rows) >= MOST_LINES, sink
    try:
        return (*_file_lines(sink.file, begin, times.set_back_at), sink)
    except OSError as problem:
        return [], False, sink._replace(problem=f"{sink.where} cannot be read: {problem.strerror}")


def of_container(
    unit: str, begin: float | None, most: int, set_back_at: float | None = None
) -> tuple[list[tuple[float, str]], str | None]:
    """The newest lines of the log of a service of Compose, whichever driver keeps it; or why there are none.

    Docker can read all of its drivers but `none`. A container that was made anew has its own log alone.
    `set_back_at`: see `_in_order`.
    """
    try:
        container = docker.current(unit)
    except docker.Silent as silent:
        return [], str(silent)
    if container is None:
        return [], f"{unit} has no container"
    done = docker.log(container, None if set_back_at else begin, most)
    if done.status != 0:
        driver = compose.text_at(container, "HostConfig", "LogConfig", "Type")
        return [], f"the container's log goes to {driver}, which docker logs does not read; json-file or journald does"
    lines: list[tuple[float, str]] = []
    for stream in (done.stdout, done.stderr):
        found = map(compose.line_of_log, stream.decode(errors="replace").replace("\r\n", "\n").split("\n"))
        own = [(at, log_lines.of_process(text)) for at, text in filter(None, found)]
        lines += _in_order(own, set_back_at)
    return sorted((line for line in lines if line[0] >= (begin or 0)), key=lambda line: line[0])[-most:], None


def sink_of(pid: int | None) -> Sink:
    """Where a process' standard error goes. Without a process, the journal is all there is to look at."""
    if not pid:
        return Sink()
    path = f"/proc/{pid}/fd/2"
    try:
        mode, name = os.stat(path).st_mode, os.readlink(path)
    except OSError as problem:
        return Sink(problem=f"where process {pid} writes it to cannot be read: {problem.strerror}")
    if stat.S_ISREG(mode):
        return Sink(name, file=path)
    if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        return Sink(piped=stat.S_ISFIFO(mode))
    return Sink(name, problem=f"the server's standard error goes to {name}; StandardError=journal keeps it")


def _nothing(where: str, unit: str) -> str:
    if where != JOURNAL:
        return f"{where} holds no line of the server since its start"
    return (
        f"the journal holds no line of the server since {unit} was started: its output goes elsewhere, or journald "
        f"does not keep it (Storage=, MaxLevelStore=, LogLevelMax=)"
    )


def _journal_lines(
    arguments: list[str], times: Times, server: Server | None = None, most: int | None = None
) -> list[tuple[float, str]]:
    """The newest lines, in order; of a server's, those alone."""
    rows = _journal_rows(arguments, times, most)
    entries = server.of(rows) if server else map(log_lines.entry_of, rows)
    return [entry for entry in entries if entry is not None]


def _journal_rows(arguments: list[str], times: Times, most: int | None = None) -> list[dict[str, str]]:
    """The fields of the newest rows, in order. `--since` with `--lines` alone would be the oldest of them."""
    options = ["--reverse", f"--lines={most or MOST_LINES}", *times.options]
    done = commands.run([*JOURNALCTL, FIELDS, *options, *arguments], timeout_s=60)
    rows = filter(None, map(log_lines.fields_of, reversed(done.stdout.splitlines())))
    return sorted(map(times.of, rows), key=log_lines.written_at)


def _surely_limited(properties: dict[str, str], times: list[float]) -> int:
    """1 where as many lines came at once as a rate limit allows: journald tells only later of the rest.

    Of a unit without a limit of its own the one that the owner has set for all counts.
    """
    burst, interval_s = properties.get("LogRateLimitBurst", ""), _seconds(properties.get("LogRateLimitIntervalUSec"))
    if not interval_s:
        text = commands.run(["systemd-analyze", "cat-config", "systemd/journald.conf"]).stdout
        limits = {name.decode(): value.decode() for name, value in LIMIT.findall(text)}
        interval = limits.get("IntervalSec") or limits.get("Interval")
        # Either of the two has a default.
        burst, interval_s = limits.get("Burst", "10000"), _seconds(interval) if interval else 30.0
        if not limits:
            return 0
    most = int(burst) if burst.isdigit() else 0
    if not most or not interval_s:
        return 0
    return int(any(times[at + most - 1] - times[at] <= interval_s for at in range(len(times) - most + 1)))


def _seconds(span: str | None) -> float:
    """A time span as systemd writes it; a number alone is seconds."""
    if span and span.isdigit():
        return float(span)
    return sum(float(number) * SECONDS_IN[unit] for number, unit in SPAN.findall(span or ""))


def _file_lines(
    path: str, begin: float | None, set_back_at: float | None = None
) -> tuple[list[tuple[float, str]], bool]:
    """The lines of a process' open file since `begin`, at most its last 16 MiB, and whether it has more.

    A runner's line has no time: it gets that of the server's next line, which is never too early. It is read up to
    where the process writes now: StandardOutput=file: does not empty what it writes over.
    """
    descriptor = held_path.open_regular(path)  # the very file, whatever its name is now
    try:
        end = min(os.fstat(descriptor).st_size, _position(path))
        first = max(0, end - MOST_BYTES)
        content = b""
        while len(content) < end - first:
            block = os.pread(descriptor, end - first - len(content), first + len(content))
            if not block:
                break
            content += block
    finally:
        os.close(descriptor)
    at, lines = time.time(), []
    for row in reversed(content.split(b"\n")[1 if first else 0 :]):
        text = row.strip(b"\0\r ").decode(errors="replace")
        if text:
            at = log_lines.moment(text) or at
            lines.append((at, log_lines.of_process(text)))
    lines = _in_order(lines[::-1], set_back_at)
    return [line for line in lines if line[0] >= (begin or 0)], first > 0


def _in_order(lines: list[tuple[float, str]], set_back_at: float | None) -> list[tuple[float, str]]:
    """Lines as they were written; from `set_back_at` on none is earlier than the one before it."""
    latest, found = 0.0, []
    for at, text in lines:
        if set_back_at and (latest or at >= set_back_at):
            latest = max(latest, at)
        found.append((latest or at, text))
    return found


def _position(path: str) -> int:
    """Where a process writes next, of an open file `/proc/PID/fd/N`."""
    with open(path.replace("/fd/", "/fdinfo/"), encoding="ascii") as file:
        return int(file.readline().split()[1])
