#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_judge`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_judge
short_description: Judge a host and write its record
version_added: "1.0.0"
description:
  - At the beginning it returns the result of a host that was lost, which holds until the end.
  - After a load test it fails unless the load proves the profile.
  - At the end of a run it concludes and writes the host's record on the controller.
  - This is an action plugin; it runs on the controller.
options:
  at:
    description: V(begin) before all else, V(load) after a load test, V(end) at the end of the run.
    type: str
    required: true
  declared:
    description: The result of M(selo.gpu_memory.gpu_memory_declare); needed but for V(begin).
    type: dict
  gate:
    description: The result of M(selo.gpu_memory.gpu_memory_gate).
    type: dict
  decision:
    description: The result of M(selo.gpu_memory.gpu_memory_decide).
    type: dict
  read:
    description: The first result of M(selo.gpu_memory.gpu_memory_info).
    type: dict
  load:
    description: The result of M(selo.gpu_memory.gpu_memory_wait).
    type: dict
  after:
    description: The result of M(selo.gpu_memory.gpu_memory_info) after the load.
    type: dict
  judged:
    description: The result of this module after the load.
    type: dict
  kept:
    description: The result of M(selo.gpu_memory.gpu_memory_generation) that kept the old state.
    type: dict
  restarted:
    description: The result of M(selo.gpu_memory.gpu_memory_restart).
    type: dict
  restored:
    description: The result of M(selo.gpu_memory.gpu_memory_generation) that put the old state back.
    type: dict
  failure:
    description: The task that failed, and its message.
    type: dict
  first:
    description: The result of this module at the end of an earlier attempt of the run, with another profile.
    type: dict
  drained:
    description: Whether users are kept away from the host since before its restart.
    type: bool
  hook_failure:
    description: What failed of letting users in again.
    type: str
  enforce:
    description: Whether anything but a pass fails the task after a load test, so that what was deployed is put back.
    type: bool
  report_dir:
    description: Where the record goes, relative to where the user stands.
    type: str
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Judge
  selo.gpu_memory.gpu_memory_judge:
    at: load
    declared: "{{ declared }}"
    decision: "{{ decision }}"
    load: "{{ load }}"
    after: "{{ after }}"
"""

RETURN = r"""
verdict:
  description: One of pass, fail, refused, rolled_back, fell_back, inconclusive, untouched.
  returned: success
  type: str
  sample: pass
reason:
  description: Why, or null for a pass.
  returned: success
  type: str
  sample: null
proof_key:
  description: What was proven, for gpu_memory_generation to keep with the proof.
  returned: after a load that passed
  type: str
proof_backend:
  description:
    - The backend's processes that were proven, since when they run, and the digests of the env files that they have
      read, for gpu_memory_generation to keep with the proof. Null where there is no backend.
  returned: after a load that passed
  type: dict
falls_back:
  description: Whether the fallback profile is to be tried now.
  returned: at the end
  type: bool
  sample: false
drained:
  description: Whether users are kept away from the host since before its restart.
  returned: at the end
  type: bool
  sample: false
serves:
  description: Whether users may come to the host, as it is proven or as it was before.
  returned: at the end
  type: bool
  sample: true
file:
  description: Where the record was written on the controller; null in check mode, and where it could not be.
  returned: at the end
  type: str
  sample: /home/alice/gpu-memory-report/gpu01.json
ok:
  description: Whether the host counts as good for the gate and the exit status.
  returned: success
  type: bool
  sample: true
"""
