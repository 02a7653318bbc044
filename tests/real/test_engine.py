"""The log's readers against Debian's llama-server itself; needs no Ollama.

script/test-long real
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils import _journal

from tests.faults import fault_lab
from tests.faults.fault_lab import Host
from tests.real import real_host

# As Ollama 0.32.15 starts it.
COMMAND = (
    "/usr/bin/llama-server --model /opt/real/model.gguf --port 18080 --host 127.0.0.1 --no-webui --offline "
    "-c {context} -np {parallel} --log-verbosity 4 --no-log-prefix --no-log-timestamps --flash-attn auto -b 512 "
    "-ub 512 --no-warmup"
)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = real_host.fresh()
    yield host
    fault_lab.lab("down", name=real_host.LAB)


def load(host: Host, context: int, parallel: int) -> tuple[dict[str, object], str]:
    """What the collection reads of a load, and the engine's whole log."""
    command = COMMAND.format(context=context, parallel=parallel)
    log = host.read(f"""
export GGML_VK_VISIBLE_DEVICES=0
{command} > /opt/real/log 2>&1 & pid=$!
for _ in $(seq 300); do grep -q 'model loaded' /opt/real/log && break; sleep 0.2; done
kill $pid; wait $pid || true
cat /opt/real/log
""")
    line = f'time=2026-11-30T05:56:33.773Z level=INFO msg="starting llama-server" cmd="{command}"'
    (found,) = _journal.parse((0.0, line) for line in [line, *log.splitlines()])["loads"]
    return found, log


@pytest.mark.parametrize(("context", "parallel"), [(512, 1), (4096, 1), (4096, 2)])
def test_what_is_read_of_a_load_is_what_the_engine_sums_up(host: Host, context: int, parallel: int) -> None:
    found, log = load(host, context, parallel)
    assert (found["offloaded"], found["offloadable"]) == (19, 19)
    # of the fit, before the load: self = model + context + compute
    (whole, model, cache, compute) = (
        int(mib)
        for mib in re.search(r"Vulkan0 .*= \d+ \+ \( *(\d+) = +(\d+) \+ +(\d+) \+ +(\d+)\)", log).groups()  # type: ignore[union-attr]
    )
    buffers = found["buffers_mib"]
    assert isinstance(buffers, dict)
    read = {
        kind: sum(mib for name, mib in buffers.items() if name == f"Vulkan0 {kind}")
        for kind in ("model", "KV", "compute")
    }
    print(f"figure: -c {context} -np {parallel}: {read} of {whole} MiB")
    assert read["model"] == pytest.approx(model, abs=1)
    assert read["KV"] == pytest.approx(cache, abs=1)
    assert read["compute"] == pytest.approx(compute, abs=1)
