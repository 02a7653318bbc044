# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module says that restarts Ollama and its backend."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  ollama:
    description: The Ollama server.
    type: dict
    suboptions:
      unit:
        description: Its systemd unit.
        type: str
        default: ollama.service
      url:
        description: The address of its API as seen from the host.
        type: str
        default: http://127.0.0.1:11434
      timeout_s:
        description: How many seconds it has to answer C(/api/version) after a restart.
        type: int
        default: 60
  backend:
    description: What uses Ollama and is stopped while Ollama restarts.
    type: dict
    suboptions:
      kind:
        description:
          - V(none) where only Ollama runs, V(unit) for a systemd unit.
          - V(command) for a command, as in C(python main.py). Its processes are found by O(backend.process_match) and
            O(backend.directory), whoever has started them; it is started as the transient unit
            C(gpu-memory-backend.service). That unit outlives the session but not a reboot, just as the command itself.
        type: str
        choices: [none, unit, command]
        default: none
      unit:
        description: The backend's systemd unit, for kind V(unit).
        type: str
      directory:
        description: The backend's working directory, for kind V(command).
        type: path
      command:
        description: The backend's command, split into words as a shell does but run without one, for kind V(command).
        type: str
      user:
        description: The user that the command runs as; by default, the owner of O(backend.directory).
        type: str
      process_match:
        description:
          - A regular expression that the command line of the backend's processes matches, for kind V(command).
          - A process is the backend's if it also has O(backend.directory) as its working directory.
        type: str
      health:
        description: What answers once the backend works. Without it, a running process counts.
        type: dict
        suboptions:
          url:
            description: The address, as seen from the host.
            type: str
          status:
            description: The HTTP status of a healthy backend.
            type: int
            default: 200
      timeout_s:
        description: How many seconds the backend has to become healthy.
        type: int
        default: 180
  restart:
    description: What restarts, each once. The order is always backend stops, Ollama restarts, backend starts.
    type: list
    elements: str
    choices: [ollama, backend]
    default: []
  private_files:
    description:
      - Env files on the host whose values no message has, whatever a journal says. Those that the units name, and those
        that M(selo.gpu_memory.gpu_memory_generation) has kept, are known without.
    type: list
    elements: path
    default: []
"""
