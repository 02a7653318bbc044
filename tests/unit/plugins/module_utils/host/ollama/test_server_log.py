"""Where a server's log goes is read from a real process; systemctl and journalctl are fakes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_log
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import SystemClock, WallClock

UNIT = "ollama.service"
BEGAN = 1_796_000_000.0
CONFIG = 'msg="server config" env="map[OLLAMA_NUM_PARALLEL:2]"'
START = 'msg="starting llama-server" cmd="/x/llama-server --model /blobs/a -c 8192 -np 2"'
STARTED = 'msg="llama-server started in 1.00 seconds"'
FOUND = 'msg="inference compute" id=GPU-0 library=CUDA pci_id=0000:01:00.0'
ACCESS = '[GIN] 2026/11/30 - 05:49:06 | 200 | 0.2s | 127.0.0.1 | POST "/api/chat"'
OOM = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.00 MiB on device 0: cudaMalloc failed: out of memory"
OFFLOADED = "load_tensors: offloaded 33/33 layers to GPU"


def slog(at: float, text: str) -> str:
    return f"time={datetime.fromtimestamp(at, timezone.utc).isoformat(timespec='milliseconds')} level=INFO {text}"


class FakeHost:
    """`journal`: (Unix time, text, other fields) of the unit; `kernel`: the same of the kernel and journald."""

    def __init__(self) -> None:
        self.journal: list[tuple[Any, ...]] = []
        self.kernel: list[tuple[Any, ...]] = []
        self.properties = {"ExecMainStartTimestamp": "Thu 2026-11-30 00:53:20 UTC", "MainPID": "0"}
        self.asked: list[list[str]] = []
        self.journald = b"# /etc/systemd/journald.conf\n#RateLimitIntervalSec=30s\n#RateLimitBurst=10000\n"

    def run(self, arguments: Sequence[str], *_unused: Any, **_unused_too: Any) -> commands.Done:
        self.asked.append(list(arguments))
        if arguments[0] == "systemd-analyze":
            return commands.Done(0, self.journald, b"")
        if arguments[0] == "systemctl":
            return commands.Done(0, "".join(f"{k}={v}\n" for k, v in self.properties.items()).encode(), b"")
        rows = self.kernel if "_TRANSPORT=kernel" in arguments else self.journal
        most = int(next(word for word in arguments if word.startswith("--lines=")).partition("=")[2])
        if 'msg="server config"' in arguments:
            rows = [row for row in rows if "server config" in row[1]]
        if "--reverse" in arguments:  # then journalctl ends at the first row that is older
            since = [float(word.partition("@")[2]) for word in arguments if word.startswith("--since=@")]
            older = [place for place, row in enumerate(rows) if since and row[0] < since[0]]
            rows = rows[max(older, default=-1) + 1 :]
        own = {"_PID": self.properties["MainPID"], "_SYSTEMD_UNIT": UNIT, "_TRANSPORT": "stdout", "_STREAM_ID": "own"}
        said = [
            json.dumps({"__REALTIME_TIMESTAMP": str(int(at * 1e6)), "MESSAGE": text, **own, **dict(*fields)})
            # As journalctl: --since with --lines is the oldest, unless the newest is to come first.
            for at, text, *fields in (reversed(rows[-most:]) if "--reverse" in arguments else rows[:most])
        ]
        return commands.Done(0, "\n".join(said).encode(), b"")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    fake = FakeHost()
    fake.properties["ExecMainStartTimestamp"] = datetime.fromtimestamp(BEGAN, timezone.utc).strftime(
        "%a %Y-%m-%d %H:%M:%S UTC"
    )
    monkeypatch.setattr(commands, "run", fake.run)
    wall = SystemClock().wall()  # two looks at it differ by some microseconds
    monkeypatch.setattr(SystemClock, "wall", lambda _clock: wall)
    return fake


@pytest.fixture
def serving(host: FakeHost) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process whose standard error goes to `stderr`, as the unit's main one."""
    started = []

    def start(stderr: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        host.properties["MainPID"] = str(process.pid)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_journal_of_a_server_that_runs(host):
    host.journal = [(BEGAN + 1, CONFIG), (BEGAN + 2, START), (BEGAN + 3, OFFLOADED), (BEGAN + 4, STARTED)]
    facts = server_log.read(UNIT, None, str)
    assert facts["log"] == {"where": "the journal", "problem": None, "dropped": 0, "cut": False,
                            "filtered": False, "lines": 4}  # fmt: skip
    assert facts["server_config"] == {"OLLAMA_NUM_PARALLEL": "2"}
    assert facts["server_at"] == BEGAN + 1
    assert facts["last_load"]["started"]


def test_a_load_of_the_server_before_is_not_the_last_load(host):
    host.journal = [(BEGAN - 9, START), (BEGAN - 8, STARTED), (BEGAN + 1, CONFIG), (BEGAN + 2, ACCESS)]
    facts = server_log.read(UNIT, BEGAN - 100, str)
    assert (len(facts["loads"]), facts["last_load"]) == (1, None)


def test_what_the_server_before_said_is_not_what_the_one_that_runs_does(host, serving):
    host.journal = [(BEGAN - 9, CONFIG), (BEGAN - 8, FOUND), (BEGAN - 7, OOM)]
    serving(subprocess.DEVNULL)
    facts = server_log.read(UNIT, BEGAN - 100, str)
    assert (facts["server_config"], facts["discovered"], len(facts["failures"])) == (None, [], 1)
    host.properties["MainPID"] = "0"
    assert "holds no line of the server since" in server_log.read(UNIT, BEGAN - 100, str)["log"]["problem"]


def test_only_lines_since_then_count_but_what_runs_may_be_older(host):
    host.journal = [(BEGAN + 1, CONFIG), (BEGAN + 2, START), (BEGAN + 3, OOM), (BEGAN + 100, ACCESS)]
    facts = server_log.read(UNIT, BEGAN + 50, str)
    assert facts["failures"] == [] and facts["loads"] == []
    assert facts["last_load"]["command"][0] == "/x/llama-server"
    assert facts["log"]["lines"] == 1


def at_boot(at: float, clock: WallClock) -> dict[str, str]:
    """What a row has of a moment by a clock besides the time that was noted."""
    return {"__MONOTONIC_TIMESTAMP": str(round((at - clock.ahead_s) * 1e6)), "_BOOT_ID": clock.boot.replace("-", "")}


@pytest.mark.parametrize("set_to_s", [-7200.0, 7200.0, -2.0])
def test_what_is_logged_after_the_clock_was_set_is_told_by_how_it_went_at_first(host, set_to_s):
    now = SystemClock().wall()
    before = WallClock(now.boot, now.ahead_s - set_to_s)
    load = before.at(time.monotonic()) - 60
    host.properties["ExecMainStartTimestampMonotonic"] = str(round((load - 500 - before.ahead_s) * 1e6))
    host.properties["ExecMainStartTimestamp"] = noted(load - 500)
    host.journal = [
        (at + (set_to_s if is_set else 0.0), text, at_boot(at, before))
        for at, text, is_set in (
            (load - 500, CONFIG, False), (load - 400, OOM, False), (load + 1, START, False),
            (load + 2, OFFLOADED, True), (load + 3, OOM, True),
        )
    ]  # fmt: skip
    facts = server_log.read(UNIT, load, str, before)
    assert [failure["at"] - load for failure in facts["failures"]] == [pytest.approx(3)]
    assert [round(one["at"] - load) for one in facts["loads"]] == [1]
    assert (facts["last_load"]["offloaded"], facts["server_config"]) == (33, {"OLLAMA_NUM_PARALLEL": "2"})
    assert (facts["log"]["cut"], facts["clock"]) == (False, {"boot": before.boot, "ahead_s": before.ahead_s})


def noted(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%a %Y-%m-%d %H:%M:%S UTC")


def test_what_was_logged_before_the_clock_was_set_is_told_by_how_it_goes_now(host, monkeypatch):
    now = SystemClock().wall()
    ends = now.at(time.monotonic())
    host.properties["ExecMainStartTimestampMonotonic"] = str(round((ends - 500 - now.ahead_s) * 1e6))
    host.properties["ExecMainStartTimestamp"] = noted(ends - 500 + 7200)
    host.journal = [
        (ends - 499 + 7200, CONFIG, at_boot(ends - 499, now)),
        (ends - 300 + 7200, OOM, at_boot(ends - 300, now)),  # two hours ahead
        (ends - 100, OOM, at_boot(ends - 100, now)),
    ]
    monkeypatch.setattr(server_log, "slept_s", lambda: 0.0)
    facts = server_log.read(UNIT, None, str)
    assert facts["server_config"] and [round(one["at"] - ends) for one in facts["failures"]] == [-300, -100]
    # How the clock went while it was suspended no row tells.
    monkeypatch.setattr(server_log, "slept_s", lambda: 60.0)
    assert server_log.read(UNIT, None, str)["clock"] is None


def test_the_clock_of_another_boot_tells_nothing(host):
    host.journal = [(BEGAN + 1, CONFIG), (BEGAN + 2, OOM)]
    facts = server_log.read(UNIT, BEGAN, str, WallClock("another", 5.0))
    assert [failure["at"] for failure in facts["failures"]] == [BEGAN + 2]


def test_no_line_of_a_file_is_earlier_than_the_one_before_where_the_clock_was_set_back(host, serving, tmp_path):
    now = SystemClock().wall()
    before = WallClock(now.boot, now.ahead_s + 7200)
    load = before.at(time.monotonic()) - 60
    with (tmp_path / "log").open("w") as file:
        process = serving(file)
        for at, text in ((load - 9, CONFIG), (load + 1, START), (load + 2 - 7200, STARTED)):
            file.write(f"{slog(at, text)}\n")
        file.flush()
        host.properties["ExecMainStartTimestamp"] = noted(load - 500)
        facts = server_log.read(UNIT, load, str, before)
    assert process.pid and [(round(one["at"] - load), one["started"]) for one in facts["loads"]] == [(1, True)]


def test_lines_of_a_client_and_of_systemd_do_not_make_a_log(host):
    host.journal = [(BEGAN + 1, ACCESS), (BEGAN + 2, "Started Ollama.", {"_PID": "1"}), (BEGAN + 3, "wrapper: ready")]
    assert "holds no line of the server" in server_log.read(UNIT, None, str)["log"]["problem"]


def test_the_kernel_counts_wherever_the_server_logs(host):
    host.kernel = [(BEGAN + 5, "NVRM: Xid (PCI:0000:01:00): 79", {"_TRANSPORT": "kernel"})]
    (failure,) = server_log.read(UNIT, None, str)["failures"]
    assert failure["line"] == "kernel: NVRM: Xid (PCI:0000:01:00): 79"


@pytest.mark.parametrize("begins", ["kernel: ", "systemd-journald: ", ""])
@pytest.mark.parametrize("says", ["NVRM: Xid (PCI:0000:01:00): 79", f"Suppressed 3 messages from {UNIT}"])
def test_who_writes_like_the_kernel_or_journald_is_neither(host, begins, says):
    host.journal = [(BEGAN + 1, CONFIG)]
    host.kernel = [(BEGAN + 5, begins + says, {"_TRANSPORT": "journal", "_PID": "77", "_STREAM_ID": None})]
    facts = server_log.read(UNIT, None, str)
    assert (facts["failures"], facts["log"]["dropped"]) == ([], 0)


@pytest.mark.parametrize("name", [UNIT, f"/system.slice/{UNIT}"])
def test_what_journald_dropped(host, name):
    host.journal = [(BEGAN + 1, CONFIG)]
    host.kernel = [
        (BEGAN + 5, f"Suppressed 1200 messages from {name}", {"_TRANSPORT": "driver"}),
        (BEGAN + 6, "Suppressed 7 messages from b.service", {"_TRANSPORT": "driver"}),
    ]
    assert server_log.read(UNIT, None, str)["log"]["dropped"] == 1200
    assert server_log.read(UNIT, BEGAN + 50, str)["log"]["dropped"] == 0


def test_a_rate_limit_that_was_reached_dropped_something_before_journald_says_so(host):
    host.journal = [(BEGAN + second / 10, CONFIG) for second in range(20)]
    host.properties.update(LogRateLimitIntervalUSec="30s", LogRateLimitBurst="20")
    assert server_log.read(UNIT, None, str)["log"]["dropped"] == 1
    host.properties.update(LogRateLimitBurst="21")
    assert server_log.read(UNIT, None, str)["log"]["dropped"] == 0


@pytest.mark.parametrize(
    ("config", "dropped"),
    [
        (b"", 0),
        (b"RateLimitBurst=20", 1),
        (b"RateLimitIntervalSec=1s\nRateLimitBurst=20", 0),
        (b"RateLimitInterval=2\nRateLimitBurst=20", 1),
        (b"RateLimitIntervalSec=0\nRateLimitBurst=20", 0),
        (b"RateLimitIntervalSec=1s", 0),
    ],
)
def test_a_rate_limit_for_all_units_counts_where_the_unit_has_none(host, config, dropped):
    host.journal = [(BEGAN + second / 10, CONFIG) for second in range(20)]
    host.journald += config
    assert server_log.read(UNIT, None, str)["log"]["dropped"] == dropped
    host.properties.update(LogRateLimitIntervalUSec="30s", LogRateLimitBurst="21")
    assert server_log.read(UNIT, None, str)["log"]["dropped"] == 0


def test_a_unit_that_leaves_lines_out_says_so(host):
    host.journal = [(BEGAN + 1, CONFIG)]
    host.properties["LogFilterPatterns"] = "~cudaMalloc"
    assert server_log.read(UNIT, None, str)["log"]["filtered"]


def test_a_namespace_of_the_journal_is_read(host):
    host.properties["LogNamespace"] = "ai"
    server_log.read(UNIT, None, str)
    assert all("--namespace=+ai" in words for words in host.asked if words[0] == "journalctl")


def test_a_long_journal_is_cut_and_says_so(host, monkeypatch):
    monkeypatch.setattr(server_log, "MOST_LINES", 10)
    host.journal = [(BEGAN + 1, CONFIG), *((BEGAN + 10 + n, START) for n in range(30))]
    facts = server_log.read(UNIT, BEGAN + 15, str)
    assert facts["log"]["cut"] and facts["server_config"] == {"OLLAMA_NUM_PARALLEL": "2"}
    assert not server_log.read(UNIT, BEGAN + 38, str)["log"]["cut"]


def test_a_journal_whose_beginning_is_gone_says_so(host):
    host.journal = [(BEGAN + 60, STARTED)]
    assert server_log.read(UNIT, BEGAN + 50, str)["log"]["cut"]
    assert not server_log.read(UNIT, BEGAN + 70, str)["log"]["cut"]


def test_a_file_is_read_even_if_its_name_is_another_ones_now(host, serving, tmp_path):
    path = tmp_path / "ollama.log"
    path.write_text("\n".join([
        slog(BEGAN - 50, START), OOM, slog(BEGAN + 1, CONFIG), slog(BEGAN + 2, START), OFFLOADED,
        slog(BEGAN + 4, STARTED), slog(BEGAN + 60, 'msg="loaded"'), OOM, slog(BEGAN + 62, 'msg="gone"'), "",
    ]))  # fmt: skip
    with path.open("ab") as file:
        file.seek(0, 2)
        serving(file)
    path.rename(tmp_path / "ollama.log.1")
    path.write_text(slog(BEGAN + 63, 'msg="not the server\'s"'))
    facts = server_log.read(UNIT, BEGAN + 50, str)
    assert facts["log"]["where"] == str(tmp_path / "ollama.log.1")
    assert (facts["log"]["problem"], facts["log"]["cut"]) == (None, False)
    assert [failure["line"] for failure in facts["failures"]] == [OOM]  # that of the server before is not
    assert facts["last_load"]["offloaded"] == 33
    assert "not the server" not in str(facts)


def test_what_a_file_holds_beyond_where_the_server_writes_is_older(host, serving, tmp_path):
    path = tmp_path / "ollama.log"
    path.write_text(slog(BEGAN + 1, CONFIG) + "\n" + OOM)
    with path.open("r+b") as file:
        file.seek(len(slog(BEGAN + 1, CONFIG)) + 1)
        serving(file)
    facts = server_log.read(UNIT, None, str)
    assert (facts["failures"], facts["log"]["lines"]) == ([], 1)


def test_a_long_file_is_read_at_its_end(host, serving, tmp_path, monkeypatch):
    monkeypatch.setattr(server_log, "MOST_BYTES", 1000)
    path = tmp_path / "ollama.log"
    path.write_text("".join(f"{slog(BEGAN + n, 'msg=hello')}\n" for n in range(100)))
    with path.open("ab") as file:
        file.seek(0, 2)
        serving(file)
    facts = server_log.read(UNIT, None, str)
    assert facts["log"]["cut"] and 5 < facts["log"]["lines"] < 25
    assert not server_log.read(UNIT, BEGAN + 98, str)["log"]["cut"]


def test_lines_after_the_last_that_has_a_time_are_of_now(host, serving, tmp_path):
    path = tmp_path / "ollama.log"
    path.write_text(f"{slog(BEGAN + 1, CONFIG)}\n{OOM}\n")
    with path.open("ab") as file:
        file.seek(0, 2)
        serving(file)
    assert len(server_log.read(UNIT, time.time() - 5, str)["failures"]) == 1


def test_an_empty_file_is_no_evidence(host, serving, tmp_path):
    with (tmp_path / "ollama.log").open("ab") as file:
        serving(file)
    assert "holds no line" in server_log.read(UNIT, None, str)["log"]["problem"]


def test_nowhere_is_not_read(host, serving):
    serving(subprocess.DEVNULL)
    host.journal = [(BEGAN + 1, ACCESS)]
    log = server_log.read(UNIT, None, str)["log"]
    assert log["problem"] == "the server's standard error goes to /dev/null; StandardError=journal keeps it"


def test_a_pipe_may_lead_to_the_journal(host, serving):
    serving(subprocess.PIPE)
    assert "holds no line" in server_log.read(UNIT, None, str)["log"]["problem"]
    host.journal = [(BEGAN + 1, CONFIG)]
    assert server_log.read(UNIT, None, str)["log"]["problem"] is None


def test_a_process_that_cannot_be_looked_at(monkeypatch):
    def denied(*_unused: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(server_log.os, "stat", denied)
    assert server_log.sink_of(1).problem == "where process 1 writes it to cannot be read: Permission denied"


def test_a_file_that_cannot_be_read(host, serving, tmp_path: Path, monkeypatch):
    with (tmp_path / "ollama.log").open("ab") as file:
        serving(file)

    def cannot_open(*_unused, **_unused_too):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(server_log.os, "open", cannot_open)
    assert server_log.read(UNIT, None, str)["log"]["problem"].endswith("ollama.log cannot be read: Input/output error")


def test_the_journal_is_asked_for_the_unit_and_not_for_its_alias(host: FakeHost) -> None:
    host.properties["Id"] = "llm-server.service"
    server_log.read("ollama.service", None, str)
    units = [asked[asked.index("--unit") + 1] for asked in host.asked if "--unit" in asked]
    assert units == ["llm-server.service"]


OTHERS = [
    {"_TRANSPORT": "syslog", "_STREAM_ID": None, "_PID": "77"},  # logger, in the unit
    {"_TRANSPORT": "journal", "_STREAM_ID": None},
    {"_STREAM_ID": "other", "_PID": "77"},  # systemd-cat, or ExecStartPre=
    {"_SYSTEMD_UNIT": "session-1.scope"},
    {"_SYSTEMD_UNIT": "user@1000.service", "_TRANSPORT": "syslog"},
]


@pytest.mark.parametrize("fields", OTHERS)
@pytest.mark.parametrize("line", [OOM, f"{START}", "load_tensors: offloaded 0/33 layers to GPU", CONFIG])
def test_a_line_that_another_process_writes_is_no_evidence(host, line, fields):
    said = slog(BEGAN + 5, line) if line.startswith("msg=") else line
    host.properties["MainPID"] = "1234567"
    host.journal = [(BEGAN + 1, slog(BEGAN, CONFIG)), (BEGAN + 2, slog(BEGAN, START)), (BEGAN + 3, OFFLOADED)]
    before = server_log.read(UNIT, None, str)
    host.journal.append((BEGAN + 5, said, fields))
    assert server_log.read(UNIT, None, str) == before
    host.journal[-1] = (BEGAN + 5, said)
    assert server_log.read(UNIT, None, str) != before


def test_runners_and_earlier_servers_write_by_connections_of_their_own_or_the_servers(host, serving):
    process = serving(subprocess.DEVNULL)
    program = str(Path(f"/proc/{process.pid}/exe").readlink())
    server = server_log.Server(UNIT, frozenset({str(process.pid)}), program)
    own = {"__REALTIME_TIMESTAMP": "1", "_SYSTEMD_UNIT": UNIT, "_TRANSPORT": "stdout"}
    rows = [
        {**own, "MESSAGE": "an earlier server", "_STREAM_ID": "a", "_PID": "7", "_EXE": f"{program} (deleted)"},
        {**own, "MESSAGE": "its runner", "_STREAM_ID": "a", "_PID": "8", "_EXE": "/x/llama-server"},
        {**own, "MESSAGE": "somebody", "_STREAM_ID": "c", "_PID": "9", "_EXE": "/usr/bin/cat"},
        {**own, "MESSAGE": "a runner", "_STREAM_ID": "b", "_PID": "10"},
        {**own, "MESSAGE": "the server", "_STREAM_ID": "b", "_PID": str(process.pid)},
    ]
    assert [text for _at, text in server.of(rows)] == ["an earlier server", "its runner", "a runner", "the server"]
    assert len(server._replace(piped=True).of(rows)) == 5
    assert len(server_log.Server(UNIT).of(rows)) == 5  # nobody runs, so nobody is known


def test_what_follows_where_journald_has_cut_a_line_was_chosen_by_a_client(host):
    host.properties["MainPID"] = "1234567"
    path, forged = '[GIN] 2026/11/30 - 05:49:06 | 404 | 1us | 127.0.0.1 | GET "/' + "x" * 99, slog(BEGAN + 3, START)
    for cut in ("line-max", "nul"):
        host.journal = [
            (BEGAN + 1, slog(BEGAN, CONFIG)),
            (BEGAN + 2, path, {"_LINE_BREAK": cut}),
            (BEGAN + 2, "CUDA error: out of memory", {"_LINE_BREAK": cut}),
            (BEGAN + 2, OOM),
            (BEGAN + 3, OFFLOADED),
        ]
        facts = server_log.read(UNIT, None, str)
        assert (facts["failures"], len(facts["loads"])) == ([], 1)
        host.journal[3] = (BEGAN + 3, forged)
        assert len(server_log.read(UNIT, None, str)["loads"]) == 1  # the layers alone


def test_a_kill_for_the_limit_of_another_control_group_is_not_the_servers(host):
    host.properties["ControlGroup"] = "/system.slice/ollama.service"
    line = (
        "oom-kill:constraint={},nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x,task_memcg={},task=x,pid=1,uid=0"
    )
    for constraint, group, counts in (
        ("CONSTRAINT_NONE", "/user.slice", True),
        ("CONSTRAINT_MEMCG", "/user.slice/user-1000.slice/ollama.service", False),
        ("CONSTRAINT_MEMCG", "/system.slice/ollama.service.d", False),
        ("CONSTRAINT_MEMCG", "/system.slice/ollama.service", True),
        ("CONSTRAINT_MEMCG", "/system.slice/ollama.service/runner", True),
    ):
        host.kernel = [(BEGAN + 5, line.format(constraint, group), {"_TRANSPORT": "kernel"})]
        assert bool(server_log.read(UNIT, None, str)["failures"]) is counts, group


def container_of(host, tmp_path, **conmon):
    """The unit as Podman makes it; the server's lines come by its container's monitor."""
    fragment = tmp_path / "ollama.service"
    fragment.write_text("[Service]\nExecStart=/usr/bin/podman run --name ollama image\n")
    host.properties.update(Id=UNIT, FragmentPath=str(fragment), SourcePath="/etc/containers/systemd/ollama.container")
    return {"_TRANSPORT": "journal", "_SYSTEMD_UNIT": "libpod-conmon.scope", "_UID": "0", "CONTAINER_NAME": "ollama"}


def test_the_lines_of_a_quadlets_container(host, serving, tmp_path, monkeypatch):
    monkeypatch.setattr(server_log.quadlet, "GENERATED", str(tmp_path))
    by_monitor = container_of(host, tmp_path)
    process = serving(subprocess.PIPE)
    monkeypatch.setattr(server_log.server_process, "server_of", lambda unit: process.pid)
    monkeypatch.setattr(server_log.host_read, "command_line", lambda pid: ["conmon", "-l", "journald"])
    by_monitor["_EXE"] = str(Path(f"/proc/{process.pid}/exe").readlink())
    strangers = ({"_UID": "1000"}, {"CONTAINER_NAME": "other"}, {"_EXE": "/usr/bin/logger"})
    host.journal = [
        (BEGAN + 1, CONFIG + "\n", by_monitor),
        *((BEGAN + 2, START, {**by_monitor, **stranger}) for stranger in strangers),
        (BEGAN + 2, START, {"_UID": "0"}),  # of the unit's own group: Podman's
    ]
    facts = server_log.read(UNIT, None, str)
    assert (facts["server_config"], facts["loads"]) == ({"OLLAMA_NUM_PARALLEL": "2"}, [])
    assert "CONTAINER_NAME=ollama" in next(words for words in host.asked if "CONTAINER_NAME=ollama" in words)
    monkeypatch.setattr(server_log.host_read, "command_line", lambda pid: ["conmon", "-l", "k8s-file:/x"])
    assert "LogDriver=journald keeps it" in server_log.read(UNIT, None, str)["log"]["problem"]


def test_what_a_container_said_that_has_ended(host, tmp_path, monkeypatch):
    monkeypatch.setattr(server_log.quadlet, "GENERATED", str(tmp_path))
    by_monitor = container_of(host, tmp_path)
    host.journal = [(BEGAN + 1, CONFIG, by_monitor), (BEGAN + 2, CONFIG, {**by_monitor, "_UID": "1000"})]
    assert server_log.read(UNIT, None, str)["log"]["lines"] == 1
    server_log.since(UNIT, 0)
    assert host.asked[-1][-2:] == ["CONTAINER_NAME=ollama", "_UID=0"]
