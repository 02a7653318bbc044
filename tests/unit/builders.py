"""What the pure logic works on, whole and healthy, so that a test states only what matters to it.

The operator's side comes from the role's own defaults and vars. The host's side has the shape of `gpu_memory_info` and
`gpu_memory_assert`; its figures are those of the guide's host on the profile `stable`.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration

ROLE = Path(__file__).resolve().parents[2] / "roles" / "gpu_memory"
MODEL = "llama3.1:8b-instruct-q8_0"
DIRECTORY = "/mnt/local/Projects/SELODSP/selo-ai/backend"
ENV_PATH = f"{DIRECTORY}/.env"
PROFILE_FILE = f"{DIRECTORY}/.env.stable-16gb"
UNIT_PATH = "/etc/systemd/system/ollama.service"
OF_QUADLET = "/etc/containers/systemd/ollama.container.d/zz-gpu-memory.conf"
DROP_IN_PATH = "/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf"
UUID = "GPU-38079876-a1c8-5fa0-92ea-8efc513d7869"
MIB = 1024 * 1024
NOW = 1_769_890_500.0
RUNNER = ["/usr/lib/ollama/llama-server", "--model", "/blobs/a", "-c", "8192", "-np", "2", "-ngl", "40", "-b", "512"]


@functools.cache
def _role_file(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROLE / path).read_text(encoding="utf-8"))


def role_file(path: str) -> dict[str, Any]:
    return copy.deepcopy(_role_file(path))


def built_in_profiles() -> dict[str, Any]:
    return role_file("vars/main.yml")["__gpu_memory_built_in_profiles"]


def presets() -> dict[str, Any]:
    return role_file("vars/main.yml")["__gpu_memory_backend_presets"]


def variables(**changes: Any) -> dict[str, Any]:
    """The role's variables as an operator who sets only `changes` has them (names without `gpu_memory_`)."""
    return {
        **role_file("defaults/main.yml"),
        **role_file("vars/main.yml"),
        **{f"gpu_memory_{name}": value for name, value in changes.items()},
    }


def declared(**changes: Any) -> dict[str, Any]:
    return declaration.declared_of(variables(**changes), [])


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with `changes`, given as {"dotted.path": value}; numbers in a path index lists."""
    result = copy.deepcopy(dict(base))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = result
        for name in parents:
            place = place[int(name) if isinstance(place, list) else name]
        place[int(last) if isinstance(place, list) else last] = value
    return result


def memory(used_mib: int, total_mib: int = 16380, reserved_mib: int = 0) -> dict[str, Any]:
    """One read of NVML's memory, in bytes."""
    used, total, reserved = (MIB * mib for mib in (used_mib, total_mib, reserved_mib))
    return {"total": total, "used": used, "free": total - used - reserved, "reserved": reserved}


def holder(pid: int, name: str | None, used_mib: int | None, kind: str = "compute") -> dict[str, Any]:
    """A process with GPU memory, as `_nvml.processes` has it."""
    used_bytes = None if used_mib is None else MIB * used_mib
    return {"pid": pid, "name": name, "kind": kind, "used_mib": used_mib, "used_bytes": used_bytes}


def gpu(index: int = 0, **changes: Any) -> dict[str, Any]:
    sizes = {"used_mib": 800, "total_mib": 16380, "reserved_mib": 0, **changes}
    return {
        "index": index,
        "uuid": UUID if index == 0 else f"GPU-{index}",
        "name": "NVIDIA GeForce RTX 4060 Ti",
        "total_mib": 16380,
        "used_mib": 800,
        "reserved_mib": 0,
        "mig": False,
        "memory": memory(sizes["used_mib"], sizes["total_mib"], sizes["reserved_mib"]),
        "processes": [holder(900, "Xorg", 800, "graphics")],
        "error": None,
        **changes,
    }


STABLE_ON_0_32 = {
    "OLLAMA_NUM_PARALLEL": "2",
    "OLLAMA_MAX_LOADED_MODELS": "1",
    "OLLAMA_CONTEXT_LENGTH": "4096",
    "LLAMA_ARG_FIT_TARGET": "4092",
}


def journal(**changes: Any) -> dict[str, Any]:
    one = {
        "at": NOW,
        "command": RUNNER,
        "started": True,
        "offloaded": 33,
        "offloadable": 33,
        "buffers_mib": {"CUDA0 model": 7605.33, "CUDA0 KV": 1024.0, "CUDA0 compute": 120.06},
        "windows": False,
        "tokens_per_s": [31.0, 31.4],
    }
    return {
        "server_config": {**STABLE_ON_0_32, "OLLAMA_KV_CACHE_TYPE": ""},
        "loads": [one],
        "last_load": one,
        "failures": [],
        "tokens_per_s": [[NOW, 31.0], [NOW, 31.4]],
        **changes,
    }


def env_file(path: str = ENV_PATH, **changes: Any) -> dict[str, Any]:
    return {
        "path": path,
        "exists": True,
        "regular": True,
        "mode": "0600",
        "sha256": "0" * 64,
        "modified_s": 5000.0,
        "values": built_in_profiles()["stable"]["env"],
        "read_by": ["python-dotenv"],
        "error": None,
        "refusals": [],
        **changes,
    }


def drop_in(environment: Mapping[str, str] | None, path: str = DROP_IN_PATH) -> dict[str, Any]:
    """Our drop-in on the host; None: there is none."""
    if environment is None:
        return {"path": path, "exists": False, "sha256": None, "error": None, "environment": {}}
    digest = sha256(unit_text.render_dropin(environment, section=unit_text.section_of(path)))
    return {
        "path": path,
        "exists": True,
        "sha256": digest,
        "error": None,
        "environment": dict(environment),
    }


def read(**changes: Any) -> dict[str, Any]:
    """A host of the guide with Ollama 0.32.15 on which `stable` is deployed and runs; `changes` as for `changed`.

    In a keyword a path has `__` where `changed` has a dot.
    """
    host = {
        "host": {"boot_id": "b", "time": NOW, "machine": "x86_64", "systemd": 252},
        "nvml": {"status": "ok", "message": "NVML answers", "driver_version": "550.163.01", "gpus": [gpu()]},
        "ollama": {
            "unit": {
                "name": "ollama.service",
                "id": "ollama.service",
                "error": None,
                "load_state": "loaded",
                "active_state": "active",
                "main_pid": 312,
                "drop_in_paths": [DROP_IN_PATH],
                "environment_files": [],
                "environment": STABLE_ON_0_32,
                "sources": [source("unit", UNIT_PATH), source("drop-in", DROP_IN_PATH, STABLE_ON_0_32)],
                "exec_environment": {},
                "need_daemon_reload": False,
            },
            "drop_ins": {"own": drop_in(STABLE_ON_0_32), "others": []},
            "process": {"pid": 312, "started_s": 6000.0, "environment": STABLE_ON_0_32},
            "runners": [{"pid": 400, "command": RUNNER, "environment": STABLE_ON_0_32}],
            "api": {
                "error": None,
                "version": "0.32.15",
                "models": [{"name": MODEL, "digest": "d1", "size": 8_540_789_183}],
                "loaded": [{"name": MODEL, "size": 9_000, "size_vram": 9_000, "context_length": 4096}],
                "show": {},
            },
            "journal": journal(),
        },
        "backend": {
            "kind": "unit",
            "unit": {"name": "selo-backend.service", "error": None, "load_state": "loaded", "active_state": "active"},
            "pids": [500],
            "started_s": 6001.0,
            "health": {"ok": True, "status": 200, "error": None},
            "env_files": [env_file()],
            "profile_file": env_file(PROFILE_FILE),
            "directory_exists": True,
        },
        "state": {"lease": None, "proof": None, "generations": [], "error": None},
    }
    return changed(host, {path.replace("__", "."): value for path, value in changes.items()})


def source(kind: str, path: str, environment: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """One file of a unit, as `_host_read.read_unit` gives them in `sources`."""
    return {
        "kind": kind,
        "path": path,
        "environment": dict(environment or {}),
        "resets": False,
        "unsets": [],
        **changes,
    }


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def process(name: str = "llama-server", peak_mib: int | None = 9054, **changes: Any) -> dict[str, Any]:
    command = RUNNER if name == "llama-server" else None
    pid = {"llama-server": 400, "python3": 500, "Xorg": 900}.get(name, 1000)
    return {"gpu": 0, "pid": pid, "name": name, "kind": "compute", "peak_mib": peak_mib, "command": command, **changes}


def load(**changes: Any) -> dict[str, Any]:
    """The result of a load test that went well."""
    result = {
        "breached": False,
        "peak_used_mib": 11690,
        "max_used_mib": 12288,
        "evidence": "sampled",
        "samples": 842,
        "interval_ms": 50.01,
        "max_gap_ms": 61.2,
        "timeline": [[0.0, 800], [4.2, 11690]],
        "processes": [process(), process("python3", 1836), process("Xorg", 800)],
        "gpus": [
            {
                "index": 0,
                "uuid": UUID,
                "total_mib": 16380,
                "peak_used_mib": 11690,
                "evidence": "sampled",
                "at_most": {
                    "at_s": 4.1,
                    "memory": memory(11690),
                    "processes": [
                        {"pid": 400, "name": "llama-server", "used_bytes": 9054 * MIB},
                        {"pid": 500, "name": "python3", "used_bytes": 1836 * MIB},
                        {"pid": 900, "name": "Xorg", "used_bytes": 800 * MIB},
                    ],
                },
            }
        ],
        "load": {
            "requests": 3,
            "ok": 3,
            "failed": 0,
            "errors": [],
            "p50_s": 5.1,
            "p95_s": 6.2,
            "max_s": 6.2,
            "wall_s": 41.3,
            "started_epoch": NOW,
            "finished_epoch": NOW + 41.3,
            "model": None,
            "others": [],
            "used": [MODEL],
            "loaded": [MODEL],
        },
    }
    return changed(result, {path.replace("__", "."): value for path, value in changes.items()})
