"""What the night's reader is told of a host."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_status

from tests.unit.builders import NOW, RUNNER, STABLE_ON_0_32, changed, declared, gpu, holder, journal, read, source

OOM = {"severity": "fatal", "at": NOW - 60, "line": "cudaMalloc failed: out of memory"}


def proven(**changes):
    host = changed(read(), changes)
    key = decisions.decide(declared(), host, deploys=False).get("proof_key")
    host["state"]["proof"] = {"key": key, "verdict": "pass", "at": NOW - 7200, "record": {}}
    return host


def command(playbook):
    return f"ansible-playbook -i hosts.yml {playbook} --limit {{host}}"


def status(host, **declaration):
    return host_status.status("gpu01", declared(**declaration), host, command)


def test_a_proven_host_needs_nobody():
    found = status(proven())
    assert (found["state"], found["wrong"], found["next"]) == ("ok", [], "nothing")
    assert found["proof"] == {"at": NOW - 7200, "age_s": 7200, "holds": True}


def test_a_host_that_cannot_be_read():
    found = host_status.status("gpu01", declared(), {"failed": True, "msg": "lost the connection"}, command)
    assert (found["state"], found["wrong"]) == ("not readable", ["lost the connection"])


@pytest.mark.parametrize(
    "changes, state, wrong, what_next",
    [
        ({"ollama.unit.active_state": "failed"}, "down", "ollama.service is failed", "journalctl -u ollama.service"),
        ({"ollama.unit.active_state": "failed", "ollama.unit.id": "llm.service"}, "down", "failed", "-u llm.service"),
        (
            {"ollama.unit.active_state": "inactive", "ollama.unit.load_state": "masked"},
            "down",
            "ollama.service is inactive",
            "systemctl unmask ollama.service",
        ),
        ({"ollama.api.error": "refused"}, "down", "Ollama does not answer: refused", "journalctl"),
        (
            {"backend.health": {"ok": False, "status": 503, "error": None}},
            "down",
            "the backend is not healthy: 503",
            "journalctl",
        ),
        ({"ollama.journal.failures": [OOM]}, "out of memory", "1 line since the last proof", "apply_conservative"),
        (
            {"nvml.gpus.0.used_mib": 12289},
            "over",
            "GPU 0 holds 12289 of 12288 MiB",
            # All is as the profile wants it: an apply would change nothing.
            "ansible-playbook -i hosts.yml selo.gpu_memory.apply_conservative --limit gpu01",
        ),
        (
            {"backend.env_files.0.values.CHAT_NUM_CTX": "8192"},
            "drift",
            "CHAT_NUM_CTX=4096 is wanted, but",
            "selo.gpu_memory.apply --limit gpu01",
        ),
        (
            {"backend.env_files.0.values.CHAT_NUM_CTX": None},
            "drift",
            "CHAT_NUM_CTX=4096 is wanted, but CHAT_NUM_CTX is not in",
            "apply",
        ),
    ],
)
def test_what_is_wrong_and_what_to_do(changes, state, wrong, what_next):
    found = status(changed(proven(), changes))
    assert found["state"] == state
    assert wrong in found["wrong"][0]
    assert what_next in found["next"]


def rolled_back(run_id="r1", profile="stable", **last):
    restore = {"changed": True, "generation": "0001", "run_id": run_id, "reason": "out of memory", "at": NOW - 60}
    host = read(backend__env_files__0__values__CHAT_NUM_CTX="8192", state__last_restore={**restore, **last})
    host["state"]["generations"] = [{"id": "0001", "at": NOW - 600}]
    return host, status(host, profile=profile)


def test_drift_after_a_rollback_says_so_and_does_not_ask_for_the_same_again():
    host, found = rolled_back()
    assert found["state"] == "drift"
    assert found["wrong"][0].startswith("the last apply was rolled back on ")
    assert found["wrong"][0].endswith(": out of memory")
    assert "CHAT_NUM_CTX=4096 is wanted" in found["wrong"][1]
    assert "selo.gpu_memory.apply_conservative --limit gpu01; or find what holds: " in found["next"]
    assert "selo.gpu_memory.tune --limit gpu01; or, if it is to stay so, set gpu_memory_profile" in found["next"]
    host["state"]["generations"].append({"id": "0002", "at": NOW - 30})  # a later run
    assert not any("rolled back" in text for text in status(host)["wrong"])
    assert status(host)["next"].endswith("selo.gpu_memory.apply --limit gpu01")


def test_a_rollback_that_somebody_asked_for_is_no_apply_that_failed():
    assert rolled_back(run_id=None)[1]["wrong"][0].startswith("the host was rolled back on ")
    assert "rolled back" not in rolled_back(changed=False)[1]["wrong"][0]


def test_after_conservative_was_rolled_back_only_tuning_is_left():
    found = rolled_back(profile="conservative")[1]
    assert found["next"] == "find what holds: ansible-playbook -i hosts.yml selo.gpu_memory.tune --limit gpu01"


def test_a_failure_before_the_proof_is_history():
    assert status(proven(**{"ollama.journal.failures": [{**OOM, "at": NOW - 9000}]}))["state"] == "ok"


def test_never_proven():
    found = status(read())
    assert (found["state"], found["wrong"]) == ("not proven", ["nothing was ever proven here"])


def test_a_run_in_progress_is_no_alarm_but_a_fault_besides_it_is():
    lease = {"holder": "alice", "since": "noon", "until": "later", "live": True, "generation": "0001"}
    assert status(changed(proven(), {"state.lease": lease}))["state"] in ("in a run", "drift")
    down = changed(proven(), {"state.lease": lease, "ollama.unit.active_state": "failed"})
    assert status(down)["state"] == "down"


def test_who_holds_the_memory_by_name_and_size():
    processes = [
        holder(900, "Xorg", 800, "graphics"),
        holder(901, "miner", 4000),
    ]
    found = status(proven(**{"nvml.gpus": [gpu(used_mib=14000, processes=processes)]}))
    assert [holder["name"] for holder in found["memory"][0]["holders"]] == ["miner", "Xorg"]
    assert found["next"] == "end miner (process 901, 4000 MiB), or move it elsewhere"


def test_a_gpu_that_is_ignored_is_shown_and_judges_nothing():
    miner = holder(901, "miner", 16000)
    host = proven(**{"nvml.ignored": [gpu(1, used_mib=16000, processes=[miner]), {"index": 2, "error": "lost"}]})
    found = status(host)
    assert (found["state"], found["next"]) == ("ok", "nothing")
    row = host_status.table([found])[1][1]
    assert row.endswith("  800 of 12288 MiB; GPU 1 (ignored) 16000 of 16380 MiB")
    full = status(changed(host, {"nvml.gpus.0.used_mib": 12289}))
    assert "GPU 1 now, ignored: 16380 MiB = miner 16000 + free 380" in host_status._block(full)
    assert "miner" not in full["next"]


def test_a_log_that_was_not_read_is_said_also_of_a_host_that_is_well():
    log = {"where": "/dev/null", "problem": "its standard error goes to /dev/null", "dropped": 0, "cut": False}
    found = status(proven(**{"ollama.journal.log": log}))
    assert found["state"] == "ok"
    texts = [text for _unused, text in host_status.table([found, status(proven())])]
    assert texts[1].endswith("; log not read as a whole")
    assert "  note     Ollama's log was not read, so a failure" in texts[3]
    assert texts[4] == "\n2 hosts: 2 ok; log not read as a whole of 1"


def test_a_model_that_a_request_keeps_for_ever_is_told_also_of_a_host_that_is_well():
    found = status(proven(**{"ollama.api.loaded.0.expires_at": "2318-11-26T13:10:14.24469Z"}))
    assert (found["state"], found["notes"], len(found["loaded"])) == ("ok", [], 1)
    (block,) = (text for one, text in host_status.table([found])[2:] if one)
    assert "  loaded   llama3.1:8b-instruct-q8_0 stays loaded for ever, by the keep_alive of some request" in block
    assert host_status.LOG_UNREAD not in "".join(text for _one, text in host_status.table([found]))


def test_the_worst_stands_last_and_everything_is_counted():
    statuses = [
        status(changed(proven(), {"ollama.unit.active_state": "failed"})),
        status(proven()),
        status(read()),
    ]
    rows = [text for _unused, text in host_status.table(statuses)]
    assert rows[-2].lstrip().startswith("gpu01  DOWN")
    assert rows[-1].strip() == "3 hosts: 1 down, 1 not proven, 1 ok"


def test_of_a_large_fleet_only_what_is_not_well_has_a_line():
    rows = host_status.table([status(proven())] * 100 + [status(read())])
    assert len(rows) == 1 + 1 + 1 + 1
    assert rows[-1][1].strip() == "101 hosts: 1 not proven, 100 ok"


def test_no_name_can_command_the_terminal():
    processes = [holder(901, "\x1b[2Jmi\nner", 14000)]
    found = status(proven(**{"nvml.gpus": [gpu(used_mib=14000, processes=processes)]}))
    assert "\x1b" not in "".join(text for _unused, text in host_status.table([found]))


def test_drift_that_is_in_no_setting_names_the_file():
    found = status(proven(**{"ollama.drop_ins.own.sha256": "0" * 64}))
    path = "/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf"
    assert (found["state"], found["wrong"]) == ("drift", [f"{path} is not as the profile wants it"])
    found = status(proven(**{"backend.profile_file.sha256": None, "backend.profile_file.exists": False}))
    assert "drift" not in (found["state"], *found["wrong"]), "nothing reads the profile's own file"


def test_a_host_that_goes_back_says_to_what_and_why():
    host = proven()
    host["state"]["restoring"] = {"generation": "0003", "reason": "nothing was heard of the apply for 240 s"}
    found = status(host)
    assert "it is going back to generation 0003 (nothing was heard of the apply for 240 s)" in found["wrong"]
    host["state"]["restoring"]["error"] = "x.service is failed"
    found = status(host)
    assert (found["state"], found["wrong"][0]) == (
        "down",
        "this host is going back to generation 0003; x.service is failed",
    )
    assert len(found["wrong"]) == len(set(found["wrong"]))
    host["state"].update(restoring=None, lease={"holder": "alice", "since": "20:15", "live": False})
    assert "alice, since 20:15; nothing is heard of it" in status(host)["wrong"]


def test_nvml_that_does_not_answer_is_down():
    found = status(proven(**{"nvml.status": "driver_gone", "nvml.message": "no driver is loaded", "nvml.gpus": []}))
    assert (found["state"], found["wrong"]) == ("down", ["NVML: no driver is loaded"])


def test_a_proof_of_something_else_holds_no_more_and_says_its_age():
    host = proven()
    host["state"]["proof"]["key"] = "another"
    found = status(host)
    assert (found["state"], found["proof"]["holds"]) == ("not proven", False)
    assert found["wrong"] == [
        "the proof of 2 h ago no longer holds: it is too old, or of something else than what runs now"
    ]


@pytest.mark.parametrize(
    "seconds, words", [(59, "just now"), (60, "1 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")]
)
def test_ages(seconds, words):
    assert host_status._ago(seconds) == words


def test_a_stranger_on_the_gpu_is_whom_to_end():
    host = proven(**{"nvml.gpus.0.used_mib": 13000})
    stranger = holder(77, "blender", 2000)
    host["nvml"]["gpus"][0]["processes"].append(stranger)
    found = status(host)
    assert found["state"] == "over"
    assert found["next"] == "end blender (process 77, 2000 MiB), or move it elsewhere"


def test_nobody_is_told_to_end_ollama_itself_or_its_backend():
    ours = [holder(400, "llama-server", 9054), holder(500, "python3", 1836), holder(312, "ollama", 2000)]
    found = status(proven(**{"nvml.gpus": [gpu(used_mib=12890, processes=ours)]}))
    assert found["state"] == "over"
    assert not found["next"].startswith("end ")


def test_out_of_memory_on_an_own_profile_needs_a_smaller_one():
    host = proven(**{"ollama.journal.failures": [OOM]})
    found = status(host, profile="mine", profiles={"mine": {"extends": "stable"}})
    assert found["state"] == "out of memory"
    assert found["next"] == "lower num_ctx or num_parallel of its profile, or serve a smaller model"


def test_a_block_is_short_and_says_how_much_it_leaves_out():
    host = proven(**{"ollama.unit.active_state": "failed", "ollama.journal.failures": [OOM] * 9})
    one = status(host)
    one["wrong"] = [f"reason {number}" for number in range(host_status.WRONG_SHOWN + 3)]
    lines = host_status._block(one).splitlines()
    assert "           and 3 more, in status.json" in lines
    assert "  memory   GPU 0 now: 16380 MiB = Xorg 800 + free 15580" in lines
    assert len([line for line in lines if "  journal" in line]) <= host_status.LINES_SHOWN


@pytest.mark.parametrize("name", ["server_at", "worked_at"])
def test_a_failure_that_is_over_ends_the_proof_and_no_more(name):
    over = status(proven(**{"ollama.journal.failures": [OOM], f"ollama.journal.{name}": NOW - 30}))
    assert (over["state"], over["wrong"]) == (
        "not proven",
        ["the proof of 2 h ago no longer holds: Ollama failed since (1 times), though it works again"],
    )
    again = status(proven(**{"ollama.journal.failures": [OOM], f"ollama.journal.{name}": NOW - 90}))
    assert again["state"] == "out of memory"


def of_client(flag, value, **load):
    """The changes of a host on which a request with this has loaded the model."""
    command_line = list(RUNNER)
    command_line[command_line.index(flag) + 1] = value
    one = {**journal()["last_load"], "command": command_line, **load}
    runners = [{"pid": 400, "command": command_line, "environment": STABLE_ON_0_32}]
    return {"ollama.runners": runners, "ollama.journal.loads": [one], "ollama.journal.last_load": one}


def by_client(**changes):
    """A proven host on which the options of a client's request have loaded the model."""
    return proven(**of_client("-c", "16384"), **changes)


def test_against_a_client_s_own_options_no_apply_is_suggested():
    found = status(by_client())
    assert (found["state"], found["wrong"], found["next"]) == (
        "by a client",
        ["what runs now is a client's: num_ctx 8192, where CHAT_NUM_CTX=4096, OLLAMA_CONTEXT_LENGTH=4096 is wanted"],
        "give that client num_ctx 4096, or none",
    )


def test_with_a_client_s_own_options_and_a_file_that_differs_an_apply_helps():
    host = by_client(**{"ollama.drop_ins.own.sha256": "0" * 64})
    assert status(host)["next"].startswith("ansible-playbook ")


def test_what_an_apply_would_refuse_comes_before_it():
    host = proven(**{"ollama.drop_ins.own.sha256": "0" * 64, "ollama.drop_ins.refusals": ["it is a link"]})
    assert status(host)["next"].startswith("mend this first, since an apply refuses it: it is a link")


OLD = "OLLAMA_NUM_PARALLEL"
LATER = "/etc/systemd/system/ollama.service.d/zzz-mine.conf"
OUTSIDE = source("drop-in", LATER, {OLD: "4"})
BY_FILES = {
    "the env file says another": {"backend.env_files.0.values.CHAT_NUM_CTX": "8192"},
    "the env file lacks it": {"backend.env_files.0.values.CHAT_NUM_CTX": None},
    "the drop-in says another": {"ollama.drop_ins.own.sha256": "0" * 64},
    "the server was not started with it": {"ollama.process.environment": {**STABLE_ON_0_32, OLD: "1"}},
    "the backend is older than its file": {"backend.started_s": 1.0},
}
BY_LOAD = {
    "nothing": {},
    "a client's num_ctx": of_client("-c", "262144"),
    "a client's num_ctx and few layers": of_client("-c", "262144", offloaded=6),
    "a client's num_gpu": of_client("-ngl", "10", offloaded=10),
    "a client's num_batch": of_client("-b", "4096"),
    "num_batch as Ollama chooses it": of_client("-b", "1024"),
    "no proof": {"state.proof": None},
    "a proof of something else": {"state.proof.key": "other"},
    "the proof is of another Ollama": {"state.proof.record": {"versions": {"ollama": "0.24.0"}}, "state.proof.key": ""},
    "out of memory since": {"ollama.journal.failures": [OOM]},
    "out of memory, and well since": {"ollama.journal.failures": [OOM], "ollama.journal.worked_at": NOW - 30},
}
LASTING = {
    "over": {"nvml.gpus.0.used_mib": 12289},
    "a stranger": {"nvml.gpus.0.used_mib": 15690, "nvml.gpus.0.processes": [holder(4194305, "stranger", 4000)]},
    "a drop-in that sorts later": {
        "ollama.unit.sources": [*read()["ollama"]["unit"]["sources"], OUTSIDE],
        "ollama.unit.environment": {**STABLE_ON_0_32, OLD: "4"},
    },
    "Ollama cannot read the value": {"ollama.journal.server_config": {**STABLE_ON_0_32, OLD: ""}},
    "a Modelfile": {
        **of_client("-c", "4096"),
        "ollama.api.show": {"m": {"parameters": {"num_ctx": 2048}}},
    },
    "fewer layers than asked for": of_client("-ngl", "40", offloaded=6),
    "down": {"ollama.unit.active_state": "failed"},
    "masked": {"ollama.unit.active_state": "inactive", "ollama.unit.load_state": "masked"},
    "not found": {"ollama.unit.load_state": "not-found", "ollama.unit.active_state": "inactive"},
    "silent": {"ollama.api.error": "refused"},
    "unwell": {"backend.health": {"ok": False, "status": 503, "error": None}},
    "NVML": {"nvml.status": "library_not_found", "nvml.message": "no NVML", "nvml.gpus": []},
    "held": {"state.lease": {"holder": "somebody", "since": "now", "live": True}},
    "going back": {"state.restoring": {"generation": "0001", "reason": "asked"}},
    "rolled back": {
        "state.last_restore": {"changed": True, "generation": "1", "run_id": "r", "reason": "why", "at": NOW - 60},
        "state.generations": [{"id": "1", "at": NOW - 600}],
    },
}
FAULTS = {**BY_FILES, **BY_LOAD, **LASTING}
DECLARED = (
    {},
    {"profiles": {"mine": {"extends": "stable"}}, "profile": "mine"},
    {"verify": "never"},
    {"strict": True},
)


def planted(*faults, base=None):
    host = proven() if base is None else base
    for fault in sorted(faults, key=list(FAULTS).index):
        changes = FAULTS[fault]
        if host["state"]["proof"] is None:
            changes = {path: value for path, value in changes.items() if not path.startswith("state.proof.")}
        host = changed(host, changes)
    return host


def after_an_apply(host, faults, declaration):
    """The host after an apply: what it writes and restarts is as wanted, what it loads proven; or nothing changes."""
    decision = decisions.decide(declared(**declaration), host, deploys=True)
    assert decision["problems"] == []
    left = [fault for fault in faults if fault in LASTING and fault != "rolled back"]
    if not decision["acts"] and (left or not decision["load_needed"]):
        return host
    if left:  # it does not hold, and is put back
        assert "rolled back" not in faults, "where an apply was undone, the same is not suggested again"
        return planted("rolled back", base=host)
    if decision["acts"] and not decision["load_needed"]:
        return planted(*(fault for fault in faults if fault in BY_LOAD and "client" not in fault))
    return proven()


@pytest.mark.parametrize("declaration", DECLARED, ids=str)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_suggested_changes_the_state(fault, declaration):
    for other in list(FAULTS)[list(FAULTS).index(fault) :]:
        host = planted(fault, other)
        found = status(host, **declaration)
        assert (found["next"] == "nothing") == (found["state"] == "ok")
        if "client" in fault and "client" in other:
            assert "selo.gpu_memory.apply " not in found["next"]
        if "selo.gpu_memory.apply " in found["next"]:
            told = {**declaration, "verify": "changed"} if "gpu_memory_verify=changed" in found["next"] else declaration
            after = status(after_an_apply(host, {fault, other}, told), **declaration)
            assert (after["state"], after["wrong"]) != (found["state"], found["wrong"]), (other, found)
        if "selo.gpu_memory.apply_conservative" in found["next"]:
            assert declared(**declaration)["profile"]["name"] != "conservative"
            assert decisions.decide(declared(profile="conservative"), host, deploys=True)["acts"]


@pytest.mark.parametrize("verify, extra", [("changed", ""), ("never", " -e gpu_memory_verify=changed")])
def test_a_proof_of_another_ollama_needs_a_new_one(verify, extra):
    found = status(planted("the proof is of another Ollama"), verify=verify)
    assert found["next"] == f"ansible-playbook -i hosts.yml selo.gpu_memory.apply --limit gpu01{extra}"


def test_every_state_is_among_them():
    found = {status(planted(fault))["state"] for fault in FAULTS}
    assert found == set(host_status.STATES) - {host_status.UNREADABLE}
