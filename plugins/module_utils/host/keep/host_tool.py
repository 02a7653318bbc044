# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`gpu-memory`, the tool on a managed host: status, restore and rollback without a controller and without a network.

It is a zipapp of the module_utils it needs under their own names, put there by `Generations.keep`. The monitor's unit
runs a copy of it (`monitor CONFIG`), so that its code does not change under it.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import marshal
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import tool_parts
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.generations import Generations
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.restore_timer import python
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.service_control import (
    FAILED,
    RESTARTED,
    STARTING,
    STOPPED,
    UNHEALTHY,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError, explained
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import going_back
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import ServiceError

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import Proof, Removed, State
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import (
        RestartedService,
        Restored,
        RestoredFile,
    )

BACK = {
    RESTARTED: "restarted",
    STOPPED: "stopped, as it was found",
    STARTING: "starting, as it was found",
    UNHEALTHY: "running and unhealthy, as it was found",
    FAILED: "not running as it should",
}


def archive() -> bytes:
    """The tool as one executable file. The same sources give the same bytes."""
    files = _files()
    return _packed(files, {name: source.encode() for name, source in files.items()})


def compiled_archive(in_place: bytes | None) -> bytes:
    """The tool with this Python's bytecode beside each source: it starts in half the time, and another Python's
    zipimport takes the source. `in_place` itself where it is that already: compiling takes longer than reading it.
    """
    files = _files()
    if in_place is not None and _is_compiled(in_place, files):
        return in_place
    content = {name: source.encode() for name, source in files.items()}
    for name, source in files.items():
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
        content[f"{name}c"] = _bytecode_header(source) + marshal.dumps(code)
    return _packed(files, content)


def _is_compiled(tool: bytes, files: Mapping[str, str]) -> bool:
    """Whether a tool is whole, of these sources, and of this Python."""
    try:
        with zipfile.ZipFile(io.BytesIO(tool)) as packed:
            return (
                tool.startswith(_first_line())
                and packed.comment == tool_parts.digest(files).encode()
                and len(packed.namelist()) == 2 * len(files)
                and all(packed.read(name) == source.encode() for name, source in files.items())
                and all(packed.read(f"{name}c").startswith(_bytecode_header(files[name])) for name in files)
            )
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError):
        return False


def _bytecode_header(source: str) -> bytes:
    """As of a hash-based .pyc file that Python does not compare with its source (PEP 552)."""
    return importlib.util.MAGIC_NUMBER + b"\1\0\0\0" + importlib.util.source_hash(source.encode())


def _files() -> dict[str, str]:
    # Ansible sends to the host only what something imports; here, so that no command of the tool has to load it.
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import watch  # noqa: F401
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import plan_command  # noqa: F401

    return tool_parts.files(_source)


def _packed(files: Mapping[str, str], content: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    buffer.write(_first_line())
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(content):
            packed.writestr(zipfile.ZipInfo(name), content[name], zipfile.ZIP_DEFLATED)
        packed.comment = tool_parts.digest(files).encode()
    return buffer.getvalue()


def _first_line() -> bytes:
    return f"#!{python()} -IS\n".encode()  # it needs nothing that is installed beside Python, nor looks for it


def _source(name: str) -> str:
    """A module's source, also where Ansible runs it out of a zip file."""
    spec = importlib.util.find_spec(f"{tool_parts.PACKAGE}.{name}")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    source = cast(Any, spec.loader).get_source(spec.name)
    return source.decode() if isinstance(source, bytes) else cast(str, source)  # bytes: of Ansible's own loader


def _say(text: object, to: TextIO | None = None) -> None:
    (to or sys.stdout).write(f"{text}\n")


def main(arguments: Sequence[str] | None = None, generations: Generations | None = None) -> int:
    """Exit status: 0 done, 1 not done (the reason is on standard error)."""
    wanted = _parser().parse_args(arguments)
    store = generations or Generations()
    try:
        return _run(wanted, store)
    except (StateError, ServiceError) as problem:
        _say(problem, sys.stderr)
    except OSError as problem:
        _say(explained(problem), sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-memory", description="The GPU memory settings that are kept on this host."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", help="who holds this host, what was proven, what was put back last")
    commands.add_parser("list", help="the generations that are kept here")
    rollback = commands.add_parser("rollback", help="go back to a generation and restart what it concerns")
    rollback.add_argument("generation", nargs="?", default="previous", help="previous (default), proven, or a number")
    rollback.add_argument("--reason", default="by hand on the host", help="what status says of it afterwards")
    restore = commands.add_parser("restore", help="end the apply that holds this host, and put its files back now")
    restore.add_argument("--if-expired", action="store_true", help="only if nothing is heard of it any more")
    commands.add_parser("remove", help="put every file back to before the first apply, and take all of this away")
    commands.add_parser("plan", help="predict the GPU memory of models; see: gpu-memory plan --help")
    commands.add_parser(
        "release",
        help="end the apply that holds this host, and put its files back; or let go of a host that does not come back, "
        "as it is, after it was mended by hand",
    )
    return parser


def _run(wanted: argparse.Namespace, store: Generations) -> int:
    if wanted.command in ("status", "list"):
        found = store.stored.summary()
        _say((_status if wanted.command == "status" else _list)(found))
        return _tell_damage(found)
    if wanted.command == "release":
        ended = store.end_run("released by hand on the host")
        if ended:
            return _tell(ended)
        left = store.drop()
        _say("nobody holds this host any more")
        if left:
            _say(f"not as it was found, and left so: {', '.join(left)}; see: systemctl status", sys.stderr)
    elif wanted.command == "remove":
        return _tell_removed(store.remove())
    elif wanted.command == "restore" and wanted.if_expired:
        result = store.restore_if_expired()
        return _tell(result) if result else 0
    elif wanted.command == "restore":
        return _tell(store.abort("by hand on the host"))
    else:
        return _tell(store.restore(generation=wanted.generation, reason=wanted.reason))
    return 0


def _tell_damage(found: State) -> int:
    if found["error"]:
        _say(found["error"], sys.stderr)
    return 1 if found["error"] else 0


def _tell(result: Restored) -> int:
    if result["generation"] is None:
        _say("no apply holds this host; nothing to put back")
    elif not result["changed"]:
        _say(f"generation {result['generation']} is in place already; nothing was restarted")
    else:
        _say(f"generation {result['generation']} is back ({result['reason']})")
        _say("\n".join([*_what(result), f"  downtime {result['downtime_s']} s"]))
    return _failed(result)


def _tell_removed(result: Removed) -> int:
    lines = [*_what(result), *(f"  {path}: gone" for path in result["removed"])]
    if lines or not result["error"]:
        _say("\n".join(lines) or "nothing of this collection is on this host")
    return _failed(result)


def _what(result: Restored) -> list[str]:
    by_hand = result.get("run_id") is None
    return [
        *(f"  {file['path']}: {_went_back(file)}" for file in result["files"]),
        *(f"  {path}: deleted since, and not made again" for path in result.get("missing") or []),
        *(f"  {path}: what somebody else has written into it stays" for path in result.get("left") or []),
        *(f"  {service['unit']}: {_is(service, by_hand)}" for service in result["services"].values()),
    ]


def _is(service: RestartedService, by_hand: bool) -> str:
    """By hand, a service goes by what it is now, and not as an apply has found it."""
    if service.get("gone"):
        return "not on this host any more"
    return "stopped, and stays so" if by_hand and service["state"] == STOPPED else BACK[service["state"]]


def _went_back(file: RestoredFile) -> str:
    if file["removed"]:
        return "removed"
    words = ", ".join(file["what"])
    return f"put back ({words if ' instead of ' in words else f'{words} differed'})"


def _failed(result: Restored) -> int:
    if result["error"]:
        _say(result["error"], sys.stderr)
    return 1 if result["error"] else 0


def _status(facts: State) -> str:
    lease, proof, last, restoring = facts["lease"], facts["proof"], facts["last_restore"], facts["restoring"]
    lines = ["lease         nobody holds this host"]
    if lease:
        lines = [
            f"lease         {lease['holder']}, run {lease['run_id']}, "
            f"since {lease['since']}, " + (f"until {lease['until']}" if lease["live"] else "expired"),
            f"kept          generation {lease['generation']}",
        ]
    idle = facts["timer"] == "inactive" and not lease
    lines.append(f"restore timer {'not armed (only during a run)' if idle else facts['timer']}")
    if restoring:
        lines.append(f"going back    {going_back(restoring)}")
        if facts["tries"]["count"]:
            lines.append(f"tried so far  {facts['tries']['count']}, again in {facts['tries']['left_s']:.0f} s")
    lines.append(f"proven        {_proof(proof)}")
    lines.append(f"previous      {facts['previous'] or 'none'}")
    if last:
        outcome = last["error"] or "done"
        lines.append(
            f"last restore  {utc.text(last['at'])}: generation {last['generation']} ({last['reason']}): {outcome}"
        )
    return "\n".join(lines)


def _proof(proof: Proof | None) -> str:
    return f"generation {proof['generation']}, {utc.text(proof['at'])}" if proof else "nothing yet"


def _list(facts: State) -> str:
    marks = {facts["previous"]: "previous", facts["proven"]: "proven"}
    if facts["lease"]:
        marks[facts["lease"]["generation"]] = "held"
    lines = [
        f"{kept['id']}  {utc.text(kept['at'])}  {kept['kind']:6}  {marks.get(kept['id'], ''):8}  "
        f"{'before' if kept['kind'] == 'kept' else 'after'}: {kept['holder']}: "
        f"{', '.join(kept['paths']) or 'no file'}"
        for kept in facts["generations"]
    ]
    return "\n".join(lines) or "no generation is kept on this host"
