"""The memory of the lab's simulated GPUs: who holds how much, and what is scripted to go wrong.

Stand-ins call `reserve()` where a real program would call cudaMalloc; tests and scenarios script the rest. All of it
is one text file ($SIMULATED_GPU_STATE, else /run/simulated-gpu/state; README.md describes it), which the simulated
libnvidia-ml.so.1 reads at every call, and where the simulated libcuda.so.1 notes what a process allocates. Units are
MiB and seconds; moments are seconds since the epoch.

Writers take a lock file and rename a new file over the old one, so readers need no lock and never see half a file.
Its directory is world-writable without the sticky bit: the users of a lab host (ollama, the backend's, root) replace
each other's files.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

SOURCES = Path(__file__).parent
LIBRARY = "libnvidia-ml.so.1"
LIBRARIES = {LIBRARY: "simulated_nvml.c", "libcuda.so.1": "simulated_cuda.c"}  # and simulated_state.c in both
PROCESS_KINDS = ("compute", "graphics", "both", "mps")
ENDED_PROCESSES_KEPT = 128  # as the driver does, whatever nvmlDeviceGetAccountingBufferSize says
GHOST_PID = 4194305  # above the kernel's largest pid, so it is never a real process


class OutOfMemory(RuntimeError):
    """A request that does not fit. `requested_mib` is what was asked for on top of what the process already holds."""

    def __init__(self, gpu: int, requested_mib: int, free_mib: int) -> None:
        super().__init__(f"out of memory on GPU {gpu}: requested {requested_mib} MiB, {free_mib} MiB free")
        self.gpu = gpu
        self.requested_mib = requested_mib
        self.free_mib = free_mib


# The records of the state file. A key that is not in the file is 0 or empty, or -1 where -1 is the default.


@dataclasses.dataclass
class Driver:
    """`cuda_fails`: CUDA finds no device, as where nvidia_uvm is missing or broke in a suspend; NVML does not care."""

    version: str = "550.163.01"
    cuda: int = 12040
    cuda_fails: int = 0


@dataclasses.dataclass
class Gpu:
    """A card; the n-th such record is GPU n. `mig`: -1 not supported, 0 off, 1 on. `compute_mode`: NVML's number.

    `lists`: how NVML lists its processes where that is not as it should be, see README.md.
    """

    total: int = 16380
    reserved: int = 0
    compute_mode: int = 0
    mig: int = -1
    pci_id: int = 0x280510DE
    name: str = "NVIDIA GeForce RTX 4060 Ti"
    uuid: str = ""
    pci: str = "00000000:01:00.0"
    capability: str = "8.9"
    lists: str = ""


@dataclasses.dataclass
class Process:
    """Memory a process holds while it lives; a ghost needs no live process. `born` tells apart uses of one pid."""

    gpu: int = 0
    pid: int = 0
    mib: int = 0
    born: int = 0
    ghost: int = 0
    at: float = 0.0
    until: float = 0.0
    kind: str = "compute"
    name: str = ""


@dataclasses.dataclass
class Ledger:
    """The high-water mark of a GPU, true up to the moment `settled`."""

    gpu: int = 0
    peak: int = 0
    settled: float = 0.0


@dataclasses.dataclass
class Accounting:
    """Accounting mode of this GPU is on."""

    gpu: int = 0


@dataclasses.dataclass
class Persistence:
    """Persistence mode of this GPU is on."""

    gpu: int = 0


@dataclasses.dataclass
class Accounted:
    """What accounting knows of a process; stays when the process has ended."""

    gpu: int = 0
    pid: int = 0
    born: int = 0
    peak: int = 0
    start: float = 0.0
    end: float = 0.0


@dataclasses.dataclass
class Spike:
    """Memory that belongs to no listed process."""

    gpu: int = 0
    add: int = 0
    at: float = 0.0
    duration: float = 0.0


@dataclasses.dataclass
class Fault:
    """What happens instead of a call. Calls count from 1, per function and GPU, in each process; 0 means no bound.

    `function` is a shell pattern; `gpu` -1 means any GPU and calls about none; `code` is the name of an NVML error as
    in pynvml's classes (NVMLError_GpuIsLost: GpuIsLost), `Success` only delays.
    """

    gpu: int = -1
    code: str = "Success"
    from_call: int = 0
    to_call: int = 0
    delay_ms: int = 0
    crash: int = 0
    at: float = 0.0
    until: float = 0.0
    function: str = "*"


@dataclasses.dataclass
class Xid:
    gpu: int = 0
    code: int = 0
    at: float = 0.0


RECORDS: dict[str, type] = {
    record.__name__.lower(): record
    for record in (Driver, Gpu, Process, Ledger, Accounting, Persistence, Accounted, Spike, Fault, Xid)
}
_TOKEN = re.compile(r'\s*(\w+)=(?:"([^"]*)"|([^\s"]+))')
_R = TypeVar("_R")


def _state_path() -> Path:
    return Path(os.environ.get("SIMULATED_GPU_STATE") or "/run/simulated-gpu/state")


def _absent(field: dataclasses.Field[Any]) -> Any:
    """What a key that is not in the file means."""
    return -1 if field.default == -1 else {"int": 0, "float": 0.0, "str": ""}[str(field.type)]


def _parse(line: str) -> object:
    name, _, rest = line.strip().partition(" ")
    if name not in RECORDS:
        raise ValueError(f"{_state_path()}: unknown record '{name}'; known: {', '.join(RECORDS)}")
    fields = dataclasses.fields(RECORDS[name])
    types = {field.name: {"int": int, "float": float, "str": str}[str(field.type)] for field in fields}
    values: dict[str, object] = {field.name: _absent(field) for field in fields}
    end = 0
    for token in _TOKEN.finditer(rest):
        key, text = token[1], token[3] if token[2] is None else token[2]
        if key not in types:
            raise ValueError(f"{_state_path()}: unknown key '{key}' of record '{name}'; known: {', '.join(types)}")
        values[key] = types[key](text)
        end = token.end()
    if rest[end:].strip():
        raise ValueError(f"{_state_path()}: cannot read '{rest[end:].strip()}' in record '{name}'")
    return RECORDS[name](**values)


def _format(record: object) -> str:
    words = [type(record).__name__.lower()]
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        if value == _absent(field) and (field.name != "gpu" or value == -1):
            continue
        text = f"{value:.6f}" if isinstance(value, float) else str(value)
        if re.search(r'["\\\n]', text):
            raise ValueError(f"a quote, backslash or line break in {field.name}: {text!r}")
        words.append(f'{field.name}="{text}"' if not text or " " in text else f"{field.name}={text}")
    return " ".join(words)


def _born(pid: int) -> int | None:
    """When the process was started, in clock ticks since boot; None if it has ended (a zombie holds no GPU memory)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if not fields or fields[0] in "ZXx" else int(fields[19])


def _alive(process: Process) -> bool:
    if process.ghost:
        return True
    born = _born(process.pid)
    return born is not None and process.born in (0, born)


def _covers(record: Process | Spike, moment: float) -> bool:
    if isinstance(record, Spike):
        return record.at <= moment < record.at + record.duration
    return record.at <= moment and (not record.until or moment < record.until)


class _State:
    def __init__(self, records: list[object]) -> None:
        self.records = records

    @classmethod
    def read(cls) -> _State:
        """The state as it is now: settled, but nothing written."""
        lines = _state_path().read_text(errors="surrogateescape").split("\n")
        state = cls([_parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")])
        state.settle(time.time())
        return state

    def write(self) -> None:
        path = _state_path()
        text = "".join(_format(record) + "\n" for record in self.records)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        fd, new = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)
        with os.fdopen(fd, "w", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(fd, mode)
        os.replace(new, path)

    def of(self, kind: type[_R], gpu: int | None = None) -> list[_R]:
        return [r for r in self.records if isinstance(r, kind) and (gpu is None or gpu == getattr(r, "gpu", None))]

    def card(self, gpu: int) -> Gpu:
        cards = self.of(Gpu)
        if not 0 <= gpu < len(cards):
            raise ValueError(f"no GPU {gpu}: this lab has {len(cards)}")
        return cards[gpu]

    def ledger(self, gpu: int) -> Ledger:
        self.card(gpu)
        return self.of(Ledger, gpu)[0]

    def used(self, gpu: int, moment: float) -> int:
        card = self.card(gpu)
        held = sum(p.mib for p in self.of(Process, gpu) if _covers(p, moment))
        held += sum(s.add for s in self.of(Spike, gpu) if _covers(s, moment))
        return min(held, card.total - card.reserved)

    def free(self, gpu: int, moment: float) -> int:
        card = self.card(gpu)
        return card.total - card.reserved - self.used(gpu, moment)

    def settle(self, now: float) -> None:
        """Bring the high-water marks up to `now`, then forget ended processes, spikes and strangers.

        Between two writes use can only rise where a spike or a stranger begins, so looking there is exact.
        """
        self._forget([process for process in self.of(Process) if not _alive(process)])
        for gpu in range(len(self.of(Gpu))):
            if not self.of(Ledger, gpu):
                self.records.append(Ledger(gpu=gpu, settled=now))
            ledger = self.of(Ledger, gpu)[0]
            begins = [spike.at for spike in self.of(Spike, gpu)] + [process.at for process in self.of(Process, gpu)]
            moments = [now] + [moment for moment in begins if ledger.settled < moment <= now]
            ledger.peak = max(ledger.peak, *(self.used(gpu, moment) for moment in moments))
            ledger.settled = max(ledger.settled, now)
        self._forget([s for s in self.of(Spike) if s.at + s.duration <= now])
        self._forget([p for p in self.of(Process) if p.until and p.until <= now])
        running = {(p.gpu, p.pid, p.born) for p in self.of(Process)}
        ended = [a for a in self.of(Accounted) if (a.gpu, a.pid, a.born) not in running]
        self._forget(ended[:-ENDED_PROCESSES_KEPT])

    def _forget(self, records: Sequence[object]) -> None:
        gone = {id(record) for record in records}
        self.records = [record for record in self.records if id(record) not in gone]


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    lock = os.open(f"{_state_path()}.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with contextlib.suppress(PermissionError):  # its owner opens it for all, whatever the umask was
            os.fchmod(lock, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _changing() -> Iterator[_State]:
    """The state to change; it is written even if the change is refused, so that the marks are kept."""
    with _locked():
        state = _State.read()
        try:
            yield state
        finally:
            state.settle(time.time())
            state.write()


def create(gpus: Sequence[Gpu] = (), driver: Driver | None = None) -> None:
    """Start anew with these cards (default: the lab's one); a missing UUID and an equal PCI address are filled in."""
    cards = [dataclasses.replace(gpu) for gpu in gpus or [Gpu()]]
    for index, card in enumerate(cards):
        # The same on every call, different on every host, as a real card's.
        card.uuid = card.uuid or f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{index}.{socket.gethostname()}')}"
        if card.pci in [other.pci for other in cards[:index]]:
            card.pci = f"00000000:{index + 1:02X}:00.0"
    directory = _state_path().parent
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o777)
    with _locked():
        state = _State([driver or Driver(), *cards])
        state.settle(time.time())
        state.write()


def reserve(mib: int, *, gpu: int = 0, pid: int | None = None, kind: str = "compute") -> None:
    """Set what a process (default: the caller) holds on a GPU to `mib` in total; raise OutOfMemory if it does not fit.

    The memory is free again when the process ends, however it ends.
    """
    if not isinstance(mib, int) or mib < 0:
        raise ValueError(f"mib must be a whole number of at least 0, not {mib!r}")
    if kind not in PROCESS_KINDS:
        raise ValueError(f"kind must be one of {', '.join(PROCESS_KINDS)}, not {kind!r}")
    pid = os.getpid() if pid is None else pid
    born = _born(pid)
    if born is None:
        raise ProcessLookupError(f"no process {pid}")
    with _changing() as state:
        now = time.time()
        process = next((p for p in state.of(Process, gpu) if p.pid == pid and not p.ghost), None)
        more = mib - (process.mib if process else 0)
        free = state.free(gpu, now)
        if more > free:
            raise OutOfMemory(gpu, more, free)
        if process is None:
            process = Process(gpu=gpu, pid=pid, born=born)
            state.records.append(process)
            # Accounting follows a process only if it is on when the process opens the GPU.
            known = [a for a in state.of(Accounted, gpu) if (a.pid, a.born) == (pid, born)]
            if state.of(Accounting, gpu) and not known:
                state.records.append(Accounted(gpu=gpu, pid=pid, born=born, start=now))
        process.mib, process.kind, process.born = mib, kind, born
        for accounted in state.of(Accounted, gpu):
            if (accounted.pid, accounted.born) == (pid, born):
                accounted.peak, accounted.end = max(accounted.peak, mib), now


def release(pid: int | None = None, gpu: int = 0) -> None:
    """Give back all that a process (default: the caller) holds on a GPU."""
    pid = os.getpid() if pid is None else pid
    with _changing() as state:
        state._forget([p for p in state.of(Process, gpu) if p.pid == pid])


def free_mib(gpu: int = 0) -> int:
    return _State.read().free(gpu, time.time())


def used_mib(gpu: int = 0) -> int:
    """What is allocated now, without the reserved part (NVML's memory v2; v1 adds the reserved part)."""
    return _State.read().used(gpu, time.time())


def peak_used_mib(gpu: int = 0) -> int:
    """The most that was ever allocated at once. Exact: it follows from the records, not from sampling."""
    return _State.read().ledger(gpu).peak


def reset_peak(gpu: int = 0) -> None:
    """Let the high-water mark start again from what is in use now."""
    with _changing() as state:
        state.ledger(gpu).peak = state.used(gpu, time.time())


def add(*records: Fault | Spike | Process | Xid) -> None:
    """Script faults, spikes, Xid errors, or processes nobody runs (ghosts). A spike or Xid without `at` is now."""
    with _changing() as state:
        for record in records:
            if record.gpu >= 0:
                state.card(record.gpu)
            if isinstance(record, (Spike, Xid)) and not record.at:
                record.at = time.time()
            state.records.append(record)


def clear(kind: type[Fault] | type[Spike] | type[Process] | type[Xid]) -> None:
    """Take back what was scripted of this kind; of processes only the ghosts."""
    with _changing() as state:
        state._forget([r for r in state.of(kind) if not isinstance(r, Process) or r.ghost])


def show() -> str:
    """A summary of each GPU, then the state file."""
    state, now = _State.read(), time.time()
    lines = [
        f"# GPU {index} {card.name}: {state.used(index, now)} used, {state.free(index, now)} free of {card.total} MiB"
        f" ({card.reserved} reserved), peak {state.ledger(index).peak}"
        for index, card in enumerate(state.of(Gpu))
    ]
    return "\n".join(lines + [_format(record) for record in state.records])


def build(directory: Path) -> Path:
    """Compile the simulated libraries into this directory with any C compiler; the path of NVML's."""
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"]
    for library, source in LIBRARIES.items():
        sources = [str(SOURCES / name) for name in (source, "simulated_state.c")]
        out = ["-o", str(directory / library)]
        subprocess.run([os.environ.get("CC", "cc"), *flags, f"-Wl,-soname,{library}", *out, *sources], check=True)
    return directory / LIBRARY


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Script the lab's simulated GPUs. MiB and seconds throughout.")
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, text: str, *, gpu: bool = True) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        if gpu:
            sub.add_argument("--gpu", type=int, default=0)
        return sub

    def window(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--in", type=float, default=0, dest="start", help="begin in so many seconds (default: now)")
        sub.add_argument("--for", type=float, default=0, dest="duration", help="end after so many (default: never)")

    sub = verb("create", "start anew with these cards", gpu=False)
    sub.add_argument("--total", type=int, action="append", help="a card of this size; once for each card")
    sub.add_argument("--reserved", type=int, default=Gpu.reserved)
    sub.add_argument("--name", default=Gpu.name)
    sub.add_argument("--uuid", default="", help="of the first card (default: made from the host's name)")
    sub.add_argument("--driver", default=Driver.version)
    verb("show", "print what is in use, and the state", gpu=False)
    verb("peak", "print the high-water mark")
    verb("used", "print what is in use")
    verb("reset-peak", "let the high-water mark start again from what is in use")
    sub = verb("spike", "take memory for a while, in no process's name")
    window(sub)
    sub.add_argument("--add", type=int, required=True)
    sub = verb("stranger", "a process nobody here runs takes memory")
    window(sub)
    sub.add_argument("--mib", type=int, required=True)
    sub.add_argument("--pid", type=int, default=GHOST_PID)
    sub.add_argument("--name", default="/usr/bin/stranger")
    sub.add_argument("--kind", choices=PROCESS_KINDS, default="compute")
    sub = verb("fault", "let calls fail, wait or crash", gpu=False)
    window(sub)
    sub.add_argument("--gpu", type=int, default=-1, help="default: any, and calls about no GPU")
    sub.add_argument("--function", default="*", help="a shell pattern, such as 'nvmlDeviceGetMemoryInfo*'")
    sub.add_argument("--code", default="Success", help="such as GpuIsLost")
    sub.add_argument("--from-call", type=int, default=0)
    sub.add_argument("--to-call", type=int, default=0)
    sub.add_argument("--delay-ms", type=int, default=0)
    sub.add_argument("--crash", action="store_true")
    sub = verb("xid", "an Xid error, now")
    sub.add_argument("--code", type=int, required=True)
    sub = verb("clear", "take back what was scripted", gpu=False)
    sub.add_argument("kind", choices=["fault", "spike", "process", "xid"])
    sub = verb("build", f"compile {' and '.join(LIBRARIES)} into a directory", gpu=False)
    sub.add_argument("directory", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    at = time.time() + args.start if getattr(args, "start", 0) else 0.0
    until = (at or time.time()) + args.duration if getattr(args, "duration", 0) else 0.0
    if args.verb == "create":
        cards = [Gpu(total=total, reserved=args.reserved, name=args.name) for total in args.total or [Gpu.total]]
        cards[0].uuid = args.uuid
        create(cards, Driver(version=args.driver))
    elif args.verb == "show":
        print(show())
    elif args.verb == "peak":
        print(peak_used_mib(args.gpu))
    elif args.verb == "used":
        print(used_mib(args.gpu))
    elif args.verb == "reset-peak":
        reset_peak(args.gpu)
    elif args.verb == "spike":
        add(Spike(gpu=args.gpu, add=args.add, at=at, duration=args.duration or 1e9))
    elif args.verb == "stranger":
        names = {"kind": args.kind, "name": args.name}
        add(Process(gpu=args.gpu, pid=args.pid, mib=args.mib, ghost=1, at=at, until=until, **names))
    elif args.verb == "fault":
        calls = {"from_call": args.from_call, "to_call": args.to_call}
        what = {"delay_ms": args.delay_ms, "crash": int(args.crash)}
        add(Fault(gpu=args.gpu, function=args.function, code=args.code, at=at, until=until, **calls, **what))
    elif args.verb == "xid":
        add(Xid(gpu=args.gpu, code=args.code))
    elif args.verb == "clear":
        clear(RECORDS[args.kind])
    elif args.verb == "build":
        print(build(args.directory))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"simulated_gpu: {error}")
