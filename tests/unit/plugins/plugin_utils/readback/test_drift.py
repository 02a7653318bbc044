"""Who overrides what: every way in which a host can come to run something else than its profile, without a load.

tests/integration/long/test_drift.py plants the same on a host, so that systemd itself merges the files.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift
from ansible_collections.selo.gpu_memory.tests.unit.builders import (
    DROP_IN_PATH,
    ENV_PATH,
    MODEL,
    NOW,
    RUNNER,
    STABLE_ON_0_32,
    UNIT_PATH,
    built_in_profiles,
    declared,
    drop_in,
    env_file,
    gpu,
    journal,
    load,
    read,
    source,
)

LATER = "/etc/systemd/system/ollama.service.d/zzz-mine.conf"
EARLIER = "/etc/systemd/system/ollama.service.d/override.conf"
FILE = "/etc/default/ollama"
OURS = source("drop-in", DROP_IN_PATH, STABLE_ON_0_32)
PARALLEL = "OLLAMA_NUM_PARALLEL"
ALLOC = "PYTORCH_CUDA_ALLOC_CONF"
FOUR = {PARALLEL: "4"}
STABLE = built_in_profiles()["stable"]["env"]


def server(*others: dict[str, Any], started: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """A host whose unit has these files after our drop-in, and whose server was started with `started`."""
    started = STABLE_ON_0_32 if started is None else started
    sources = changes.pop("sources", [source("unit", UNIT_PATH), OURS, *others])
    files = [{"path": one["path"], "environment": one["environment"]} for one in sources if one["kind"][0] == "E"]
    environment = changes.pop("environment", None)
    return read(
        ollama__unit__sources=sources,
        ollama__unit__environment_files=files,
        ollama__unit__environment=started if environment is None else environment,
        ollama__process__environment=started,
        ollama__journal__server_config={name: started.get(name, "0") for name in STABLE_ON_0_32},
        **{f"ollama__{path}": value for path, value in changes.items()},
    )


def runs(*flags: str, show: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A host whose runner has these flags instead of its own."""
    command = list(RUNNER)
    for flag in flags:
        name, value = flag.split()
        command[command.index(name) + 1] = value
    one = {**journal()["last_load"], "command": command, **changes.pop("load", {})}
    return read(
        ollama__runners=[{"pid": 400, "command": command, "environment": STABLE_ON_0_32}],
        ollama__journal=journal(loads=[one], last_load=one),
        ollama__api__show=show or {},
        **changes,
    )


def backend(values: dict[str, str], **changes: Any) -> dict[str, Any]:
    return read(backend__env_files=[env_file(values={**STABLE, **values})], **changes)


LESS = {name: value for name, value in STABLE_ON_0_32.items() if name != PARALLEL}
PLANTED = {
    "a drop-in that sorts later": (
        server(source("drop-in", LATER, FOUR), started={**STABLE_ON_0_32, **FOUR}),
        PARALLEL,
        f"the drop-in {LATER} sets {PARALLEL}=4, and has the last word",
    ),
    "a later drop-in with an empty Environment=": (
        server(source("drop-in", LATER, resets=True), started={}),
        "OLLAMA_CONTEXT_LENGTH",
        f"the drop-in {LATER} takes OLLAMA_CONTEXT_LENGTH back (an empty Environment=), and has the last word",
    ),
    "an UnsetEnvironment=, wherever it stands": (
        server(
            started=LESS,
            environment=STABLE_ON_0_32,
            sources=[source("unit", UNIT_PATH), source("drop-in", EARLIER, unsets=[PARALLEL]), OURS],
        ),
        PARALLEL,
        f"the drop-in {EARLIER} unsets {PARALLEL}, and has the last word",
    ),
    "an EnvironmentFile": (
        server(
            source("EnvironmentFile", FILE, FOUR), started={**STABLE_ON_0_32, **FOUR}, environment=STABLE_ON_0_32
        ),
        PARALLEL,
        f"the EnvironmentFile {FILE} sets {PARALLEL}=4, and has the last word",
    ),
    "the unit's own Environment=, where our drop-in is gone": (
        server(
            started=FOUR,
            sources=[source("unit", UNIT_PATH, FOUR)],
            drop_ins__own=drop_in(None),
            unit__drop_in_paths=[],
        ),
        PARALLEL,
        f"the unit {UNIT_PATH} sets {PARALLEL}=4; {DROP_IN_PATH} is missing",
    ),
    "our drop-in, edited by hand": (
        server(
            started={**STABLE_ON_0_32, **FOUR},
            sources=[source("drop-in", DROP_IN_PATH, {**STABLE_ON_0_32, **FOUR})],
            drop_ins__own=drop_in({**STABLE_ON_0_32, **FOUR}),
        ),
        PARALLEL,
        f"{DROP_IN_PATH} says {PARALLEL}=4",
    ),
    "our drop-in, which systemd has not read": (
        server(started={}, unit__drop_in_paths=[], sources=[source("unit", UNIT_PATH)]),
        PARALLEL,
        f"systemd has not read {DROP_IN_PATH} as it is now: systemctl daemon-reload, then restart ollama.service",
    ),
    "a server that was not restarted": (
        server(
            started={**STABLE_ON_0_32, **FOUR},
            environment=STABLE_ON_0_32,
            drop_ins__own={**drop_in(STABLE_ON_0_32), "modified_s": 7000.0},
        ),
        PARALLEL,
        f"the server was started before {DROP_IN_PATH} was written; restart ollama.service",
    ),
    "an ExecStart through env": (
        server(started={**STABLE_ON_0_32, **FOUR}, environment=STABLE_ON_0_32, unit__exec_environment=FOUR),
        PARALLEL,
        f"ExecStart of ollama.service sets {PARALLEL}=4",
    ),
    "a wrapper": (
        server(
            started={**STABLE_ON_0_32, **FOUR},
            environment=STABLE_ON_0_32,
            drop_ins__own={**drop_in(STABLE_ON_0_32), "modified_s": 10.0},
        ),
        PARALLEL,
        "the server was not started with what ollama.service says; was it started by hand?",
    ),
    "a program that starts it": (
        server(
            started={**STABLE_ON_0_32, **FOUR},
            environment=STABLE_ON_0_32,
            drop_ins__own={**drop_in(STABLE_ON_0_32), "modified_s": 10.0},
            unit__programs=["/usr/bin/python3", "/opt/start.py", "/usr/local/bin/ollama"],
        ),
        PARALLEL,
        "systemd has it so in memory for ollama.service, but /usr/bin/python3 or /opt/start.py, by which its ExecStart "
        "starts the server, changes it; take that out there",
    ),
    "an env file of the backend, edited by hand": (
        backend({"CHAT_NUM_CTX": "8192"}),
        "CHAT_NUM_CTX",
        f"{ENV_PATH} says CHAT_NUM_CTX=8192",
    ),
    "a key that somebody took out": (
        read(backend__env_files=[env_file(values={"OLLAMA_GPU_LAYERS": "40"})]),
        "CHAT_NUM_CTX",
        f"CHAT_NUM_CTX is not in {ENV_PATH}",
    ),
    "the backend's unit, whose environment load_dotenv() leaves alone": (
        backend({}, backend__unit__sources=[source("drop-in", "/etc/x.conf", {"CHAT_NUM_CTX": "8192"})]),
        "CHAT_NUM_CTX",
        "the drop-in /etc/x.conf sets CHAT_NUM_CTX=8192, and load_dotenv() overrides nothing",
    ),
    "whoever started the backend": (
        backend({}, backend__processes=[{"pid": 500, "environment": {"CHAT_NUM_CTX": "8192"}}]),
        "CHAT_NUM_CTX",
        "whoever started the backend sets CHAT_NUM_CTX=8192, and load_dotenv() overrides nothing",
    ),
    "a backend that was not restarted": (
        read(backend__env_files=[env_file(modified_s=7000.0)]),
        "CHAT_NUM_CTX",
        f"the backend was started before {ENV_PATH} was written; restart it",
    ),
    "a Modelfile's PARAMETER": (
        runs("-c 4096", show={MODEL: {"parameters": {"num_ctx": 2048}}}),
        "CHAT_NUM_CTX",
        f"PARAMETER num_ctx 2048 in the Modelfile of {MODEL}",
    ),
    "layers for every model": (
        server(
            source("drop-in", EARLIER, {"LLAMA_ARG_N_GPU_LAYERS": "10"}),
            started={**STABLE_ON_0_32, "LLAMA_ARG_N_GPU_LAYERS": "10"},
            runners=[],
            journal__last_load=None,
            journal__loads=[],
        ),
        "LLAMA_ARG_FIT_TARGET",
        f"the drop-in {EARLIER} sets it",
    ),
    "fitting switched off": (
        server(
            source("drop-in", EARLIER, {"LLAMA_ARG_FIT": "off"}),
            started={**STABLE_ON_0_32, "LLAMA_ARG_FIT": "off"},
            runners=[],
            journal__last_load=None,
            journal__loads=[],
        ),
        "LLAMA_ARG_FIT_TARGET",
        f"the drop-in {EARLIER} sets it",
    ),
    "an Ollama upgraded across 0.30": (
        server(
            started={**STABLE_ON_0_32, "OLLAMA_GPU_OVERHEAD": "4290772992", "LLAMA_ARG_FIT_TARGET": ""},
            sources=[source("drop-in", DROP_IN_PATH, {"OLLAMA_GPU_OVERHEAD": "4290772992"})],
            drop_ins__own=drop_in({"OLLAMA_GPU_OVERHEAD": "4290772992"}),
        ),
        "LLAMA_ARG_FIT_TARGET",
        f"{DROP_IN_PATH} was written for another Ollama: it says OLLAMA_GPU_OVERHEAD, which this one does not heed; "
        "apply again",
    ),
}  # fmt: skip
CLIENTS = {
    "num_ctx": (runs("-c 16384"), "CHAT_NUM_CTX", "a client's own options: num_ctx 8192"),
    "num_gpu": (
        runs("-ngl 20", load={"offloaded": 20}),
        "OLLAMA_GPU_LAYERS",
        "a client's own options: num_gpu 20",
    ),
    "num_batch": (runs("-b 2048"), "num_batch", "a client's own options: num_batch 2048"),
}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"add_keys": False}, drift.NO_EFFECT),
        ({"add_keys": True}, drift.INSTEAD),
        ({"add_keys": False, "values": {ALLOC: "x"}}, drift.INSTEAD),
    ],
    ids=str,
)
def test_a_key_that_no_file_may_get_is_no_failure(changes: dict[str, Any], state: str) -> None:
    host = read(backend__env_files=[env_file(**{"values": {}, **changes})])
    row = next(row for row in drift.drift(declared(), host) if row["name"] == ALLOC)
    assert row["state"] == state, row


@pytest.mark.parametrize(
    ("read_by", "values", "who"),
    [
        (["python-dotenv"], {"CHAT_NUM_CTX": "4096"}, "and load_dotenv() overrides nothing"),
        (["python-dotenv"], {}, "and load_dotenv() overrides nothing"),
        (["pydantic-settings"], {}, "and pydantic-settings overrides nothing"),
        # Nobody says who reads it: it may be load_dotenv().
        (None, {"CHAT_NUM_CTX": "4096"}, f"overrides nothing (if {ENV_PATH} is read otherwise, say so in its read_by)"),
        (None, {}, f"overrides nothing (if {ENV_PATH} is read otherwise, say so in its read_by)"),
        # These set it anew, also a key that the file is yet to get.
        (["bash", "python-dotenv"], {"CHAT_NUM_CTX": "4096"}, None),
        (["honcho"], {"CHAT_NUM_CTX": "4096"}, None),
        (["systemd"], {}, f"CHAT_NUM_CTX is not in {ENV_PATH}"),
    ],
    ids=str,
)
def test_whether_what_a_backend_is_started_with_wins_over_its_env_file(
    read_by: list[str] | None, values: dict[str, str], who: str | None
) -> None:
    host = read(
        backend__env_files=[env_file(values=values, read_by=read_by)],
        backend__unit__sources=[source("drop-in", "/etc/x.conf", {"CHAT_NUM_CTX": "8192"})],
    )
    told = drift.backend_override(host, "CHAT_NUM_CTX", "4096")
    assert told is None if who is None else told and told.endswith(who)


@pytest.mark.parametrize(
    ("flags", "load", "state", "effect"),
    [
        (["--cache-type-k", "q8_0", "--cache-type-v", "q8_0"], {}, drift.IN_FORCE, "the cache is q8_0"),
        ([], {}, drift.INSTEAD, "the cache is f16"),
        ([], {"cache_type": "q8_0"}, drift.IN_FORCE, "the cache is q8_0"),  # sent, up to 0.24
    ],
)
def test_the_type_of_the_cache_is_read_back_from_the_runner(
    flags: list[str], load: dict[str, str], state: str, effect: str
) -> None:
    q8 = {**STABLE_ON_0_32, "OLLAMA_KV_CACHE_TYPE": "q8_0"}
    one = {**journal()["last_load"], "command": [*RUNNER, *flags], **load}
    host = server(
        started=q8,
        sources=[source("unit", UNIT_PATH), source("drop-in", DROP_IN_PATH, q8)],
        drop_ins__own=drop_in(q8),
        runners=[{"pid": 400, "command": one["command"], "environment": q8}],
        journal=journal(loads=[one], last_load=one, server_config=q8),
    )
    found = row(host, "OLLAMA_KV_CACHE_TYPE", overrides={"intent": {"kv_cache_type": "q8_0"}})
    assert (found["state"], found["effect"]) == (state, effect)


def row(host: dict[str, Any], name: str, **declaration: Any) -> dict[str, Any]:
    (found,) = (row for row in drift.drift(declared(**declaration), host) if row["name"] == name)
    return found


@pytest.mark.parametrize(("host", "name", "source"), [pytest.param(*case, id=what) for what, case in PLANTED.items()])
def test_a_planted_override_is_named_with_its_source(host, name, source):
    assert row(host, name)["source"] == source
    assert drift.drifted(row(host, name)) or row(host, name)["state"] == "void"


@pytest.mark.parametrize(("host", "name", "source"), [pytest.param(*case, id=what) for what, case in CLIENTS.items()])
def test_a_client_s_own_options_are_named(host, name, source):
    found = row(host, name)
    assert (found["state"], found["source"]) == ("instead", source)
    assert drift.drifted(found)


UNASKED = {
    "num_batch, by the context": (runs("-b 1024"), "num_batch"),
    "num_ctx, by the server's own environment": (
        runs("-c 16384", ollama__process__environment={"OLLAMA_CONTEXT_LENGTH": "8192"}),
        "CHAT_NUM_CTX",
    ),
    "num_ctx, by the GPUs' memory": (
        runs("-c 65536", ollama__process__environment={}, nvml__gpus=[gpu(total_mib=24576)]),
        "CHAT_NUM_CTX",
    ),
}


@pytest.mark.parametrize(("host", "name"), [pytest.param(*case, id=what) for what, case in UNASKED.items()])
def test_what_nobody_sent_is_nobody_s_doing_until_the_backend_has_asked(host, name):
    found = row(host, name)
    assert (found["state"], found["source"]) == ("partial", None)
    assert found["effect"].endswith(", as Ollama chooses it for requests that carry none")
    assert not drift.drifted(found)
    (found,) = (one for one in drift.drift(declared(), host, load(processes=[])) if one["name"] == name)
    assert (found["state"], found["source"]) == ("instead", None)


def test_layers_for_which_a_client_s_context_left_no_room_are_its_doing():
    found = row(runs("-c 262144", load={"offloaded": 6}), "OLLAMA_GPU_LAYERS")
    assert found["source"] == "a client's own options: num_ctx 131072"
    assert row(runs(load={"offloaded": 6}), "OLLAMA_GPU_LAYERS")["source"] is None


def test_what_a_client_has_running_is_told_with_its_share_of_the_gpu_and_with_what_it_should_send():
    host = runs("-c 262144", "-b 4096", load={"offloaded": 6})
    host["ollama"]["api"]["loaded"][0] |= {"size": 43 << 30, "size_vram": 8 << 30}
    told, cures = drift.by_clients(declared(), host)
    assert told == [
        "what runs now is a client's: num_ctx 131072, num_batch 4096, where OLLAMA_GPU_LAYERS=40, CHAT_NUM_CTX=4096, "
        f"OLLAMA_CONTEXT_LENGTH=4096, num_batch=512 is wanted; 8192 of 44032 MiB of {MODEL} are on the GPU"
    ]
    assert cures == ["num_ctx 4096, or none", "num_batch 512, or none"]
    host["ollama"]["runners"] = []  # it was unloaded since
    assert drift.by_clients(declared(), host) == ([], [])


def test_a_client_that_sends_layers_should_send_those_that_cap_or_none():
    assert drift.by_clients(declared(), runs("-ngl 20", load={"offloaded": 20}))[1] == ["no num_gpu"]


def test_a_host_on_its_profile_has_no_drift():
    rows = drift.drift(declared(), read())
    assert not [row for row in rows if drift.drifted(row)]
    sources = {row["name"]: row["source"] for row in rows if row["source"]}
    assert sources == {"LLAMA_ARG_FIT_TARGET": f"OLLAMA_GPU_LAYERS in {ENV_PATH}"}  # void by the guide's own key


def test_what_each_place_says_is_kept_in_the_order_of_a_value_s_way():
    assert row(read(), PARALLEL)["seen"] == {
        "drop-in": "2", "unit": "2", "process": "2", "server config": "2", "runner": 2
    }  # fmt: skip
    assert row(read(), "CHAT_NUM_CTX")["seen"] == {ENV_PATH: "4096", "runner": 8192, "/api/ps": 4096}
    assert row(read(), "OLLAMA_GPU_LAYERS")["seen"] == {ENV_PATH: "40", "runner": 40, "layers": "33/33"}


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (PARALLEL, server(drop_ins__own=drop_in({**STABLE_ON_0_32, **FOUR}))),
        ("CHAT_NUM_CTX", backend({"CHAT_NUM_CTX": "8192"})),
    ],
)
def test_what_holds_only_until_the_next_restart_is_drift_already(name, host):
    found = row(host, name)
    assert found["source"]
    assert drift.drifted(found)


def test_without_a_loaded_model_files_and_processes_still_tell():
    idle = {"ollama__runners": [], "ollama__api__loaded": [], "ollama__journal": journal(loads=[], last_load=None)}
    assert not [row for row in drift.drift(declared(), read(**idle)) if drift.drifted(row)]
    edited = read(**idle, backend__env_files=[env_file(values={**STABLE, "CHAT_NUM_CTX": "8192"})])
    assert row(edited, "CHAT_NUM_CTX")["state"] == "instead"


def test_a_value_that_ollama_cannot_read():
    host = read(ollama__journal__server_config={**STABLE_ON_0_32, PARALLEL: "1"})
    found = row(host, PARALLEL)
    assert (found["state"], found["source"]) == ("instead", "Ollama cannot read the value")


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ("0.24.0", "0.32.15", "Ollama was upgraded after the proof; apply again"),
        ("0.32.15", "0.24.0", "Ollama was downgraded after the proof; apply again"),
        ("0.30.0", "0.32.15", None),
        ("0.23.0", "0.24.0", None),
        (None, "0.32.15", None),
    ],
)
def test_another_era_than_the_proof_s_is_drift(then, now, words):
    proof = {"record": {"versions": {"ollama": then}}, "at": 0.0, "key": "k"} if then else None
    rows = drift.drift(declared(), read(state__proof=proof, ollama__api__version=now))
    assert [row["source"] for row in rows if row["name"] == "Ollama"] == ([words] if words else [])


def test_in_a_file_that_bash_sources_the_file_wins():
    host = read(
        backend__env_files=[env_file(read_by=["bash", "python-dotenv"])],
        backend__unit__sources=[source("EnvironmentFile", "/etc/x", {"CHAT_NUM_CTX": "8192"})],
    )
    assert row(host, "CHAT_NUM_CTX")["source"] is None


@pytest.mark.parametrize(
    ("sources", "value"),
    [
        ([], None),
        ([source("unit", "a", {"X": "1"}), source("drop-in", "b", {"X": "2"})], "2"),
        ([source("EnvironmentFile", "a", {"X": "1"})], "1"),
        ([source("drop-in", "a", {"X": "1"}), source("drop-in", "b", resets=True)], None),
        ([source("drop-in", "a", {"X": "1"}), source("drop-in", "b", {"X": "2"}, resets=True)], "2"),
        ([source("drop-in", "a", {"X": "1"}, unsets=["X=1"])], None),
        ([source("drop-in", "a", {"X": "1"}, unsets=["X=2"])], "1"),
        ([source("drop-in", "a", {"X": "1"}, unsets=["Y"])], "1"),
    ],
)
def test_the_last_word_by_systemd_s_rules(sources, value):
    last = drift.last_word("X", sources)
    assert (last[1] if last else None) == value


def test_a_load_that_never_came_up_puts_nothing_in_force():
    failed = {**journal()["last_load"], "started": False}
    log = journal(loads=[failed], last_load=failed)
    after = read(ollama__runners=[], ollama__api__loaded=[], ollama__journal=log)
    died = {"processes": [{"pid": 1, "command": RUNNER, "peak_mib": 9000}]}
    effect = drift.effects(died, after)
    assert (effect["runner"], effect["offloaded"], effect["num_ctx"]) == (False, None, None)
    working = read(ollama__runners=[], ollama__journal=journal())
    assert drift.effects(died, working)["offloaded"] == 33


def test_a_runner_that_is_still_loading_counts():
    loading = {**journal()["last_load"], "started": False}
    effect = drift.effects(None, read(ollama__journal=journal(loads=[loading], last_load=loading)))
    assert (effect["runner"], effect["offloaded"]) == (True, 33)


def test_loads_of_the_server_before_the_last_restart_do_not_count():
    assert drift.load_by(RUNNER, journal(server_at=NOW + 1)) == {}
    assert drift.load_by(RUNNER, journal(server_at=NOW - 1))["offloaded"] == 33
    assert drift.load_by(["another"], journal()) == {}


def test_a_runner_of_an_embedder() -> None:
    shows = {"e": {"capabilities": ["embedding"], "blob": "/e"}, "c": {"blob": "/c"}, "gone": None}
    assert drift.is_embedders(["llama-server", "--model", "/c", "--embedding"], {})
    assert drift.is_embedders(["ollama", "runner", "--model", "/e"], shows)
    assert not drift.is_embedders(["ollama", "runner", "--model", "/c"], shows)
    assert not drift.is_embedders([], {"e": {"capabilities": ["embedding"], "blob": None}})


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, False),
        ({"details": {"family": "llama"}}, False),
        ({"details": {"family": "qwen35"}}, True),
        ({"details": {"family": "x", "families": ["mllama"]}}, True),
        ({"model_info": {"general.architecture": "lfm2"}}, True),
        ({"capabilities": ["embedding"]}, True),
    ],
)
def test_has_one_slot(shown: Any, expected: bool) -> None:
    assert drift.has_one_slot(shown) is expected
