from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import backend_run
from ansible_collections.selo.gpu_memory.tests.unit.builders import (
    DROP_IN_PATH,
    ENV_PATH,
    MODEL,
    NOW,
    OF_QUADLET,
    PROFILE_FILE,
    RUNNER,
    STABLE_ON_0_32,
    built_in_profiles,
    declared,
    drop_in,
    env_file,
    gpu,
    journal,
    read,
    source,
)

EARLIER = "/etc/systemd/system/ollama.service.d/override.conf"

STABLE_ENV = built_in_profiles()["stable"]["env"]


def decide(host=None, declaration=None, deploys=True):
    return decisions.decide(declaration or declared(), host or read(), deploys)


def good(*args, **kwargs):
    decision = decide(*args, **kwargs)
    assert decision["problems"] == []
    return decision


def proven(host=None, declaration=None, age_s=3600.0, **changes):
    """The host with a proof of its present state."""
    host = host or read()
    key = good(host, declaration)["proof_key"]
    host["state"]["proof"] = {"key": key, "verdict": "pass", "at": NOW - age_s, "record": {}, **changes}
    return host


# Nothing to do, and proofs ------------------------------------------------------------------------------------------


def test_a_host_on_the_profile_with_a_proof_is_left_alone():
    decision = good(proven())
    assert (decision["acts"], decision["files"], decision["restart"], decision["load_needed"]) == (False, [], [], False)
    assert decision["proof"]["verdict"] == "pass"


@pytest.mark.parametrize("strict", [False, True])
def test_a_proven_host_on_which_a_client_s_options_run_is_left_alone_and_says_so(strict):
    host = read()
    host["ollama"]["runners"][0]["command"] = [{"8192": "262144"}.get(word, word) for word in RUNNER]
    assert not any("client" in note for note in good(host)["notes"])  # it is to be loaded
    decision = decide(proven(host), declared(strict=strict))
    assert (decision["problems"], decision["acts"], decision["load_needed"]) == ([], False, False)
    assert decision["notes"][-1] == (
        "what runs now is a client's: num_ctx 131072, where CHAT_NUM_CTX=4096, OLLAMA_CONTEXT_LENGTH=4096 is wanted; "
        "give that client num_ctx 4096, or none"
    )


def test_without_a_proof_it_is_loaded_but_not_changed():
    decision = good()
    assert (decision["acts"], decision["load_needed"], decision["proof"]) == (False, True, None)


@pytest.mark.parametrize(
    "age_s, holds", [(0, True), (7 * 86400, True), (7 * 86400 + 1, False), (-3600, True), (-2 * 86400, False)]
)
def test_a_proof_gets_old_and_none_is_from_the_future(age_s, holds):
    assert bool(good(proven(age_s=age_s))["proof"]) is holds


def test_proof_max_age():
    declaration = declared(proof_max_age=1)
    assert good(proven(age_s=86000, declaration=declaration), declaration)["proof"]
    assert not good(proven(age_s=87000, declaration=declaration), declaration)["proof"]


@pytest.mark.parametrize(
    "severity, age_s, holds", [("fatal", 60, False), ("fatal", 7200, True), ("recovered", 60, True)]
)
def test_a_failure_after_it_refutes_a_proof(severity, age_s, holds):
    host = proven(age_s=3600)
    host["ollama"]["journal"]["failures"] = [{"severity": severity, "at": NOW - age_s, "line": "out of memory"}]
    decision = good(host)
    assert (bool(decision["proof"]), decision["load_needed"]) == (holds, not holds)


def test_a_proof_that_did_not_pass_is_none():
    assert good(proven(verdict="fail"))["proof"] is None


@pytest.mark.parametrize(
    "verify, is_proven, needed",
    [
        ("changed", True, False),
        ("changed", False, True),
        ("always", True, True),
        ("always", False, True),
        ("never", True, False),
        ("never", False, False),
    ],
)
def test_when_a_load_is_needed(verify, is_proven, needed):
    declaration = declared(verify=verify)
    host = proven(declaration=declaration) if is_proven else read()
    assert good(host, declaration)["load_needed"] is needed


def test_a_change_needs_a_load_though_a_proof_of_the_wanted_state_is_kept():
    host = proven()
    host["ollama"]["drop_ins"]["own"] = drop_in(None)
    decision = good(host)
    assert (decision["proof"], decision["load_needed"]) == (None, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"nvml__driver_version": "560.35.03"},
        {"nvml__gpus": [gpu(uuid="GPU-other")]},
        {"nvml__gpus": [gpu(), gpu(1)]},
        {"ollama__api__version": "0.32.16"},
        {"ollama__api__models": [{"name": MODEL, "digest": "d2"}]},
        {"ollama__unit__sources": [source("drop-in", EARLIER, {"OLLAMA_KV_CACHE_TYPE": "q8_0"})]},
        {"ollama__unit__sources": [source("EnvironmentFile", "/e", {"OLLAMA_FLASH_ATTENTION": "1"})]},
    ],
    ids=str,
)
def test_a_proof_of_something_else_proves_nothing(changes):
    host = read(**changes)
    host["state"]["proof"] = proven()["state"]["proof"]
    assert good(host)["proof"] is None


def test_a_proof_is_of_the_programs_and_files_that_it_was_made_with():
    """But for the number of a program's device, which is another after a reboot."""

    def key(starts):
        return good({**read(), "starts": starts})["proof_key"]

    proven_with = {"/srv/app/main.py": "0a1b", "/usr/local/bin/ollama": "66:1234:5678:9"}
    assert key({**proven_with, "/usr/local/bin/ollama": "67:1234:5678:9"}) == key(proven_with)
    for now in (
        {**proven_with, "/srv/app/main.py": "0a1c"},
        {**proven_with, "/usr/local/bin/ollama": "66:1234:5678:10"},
        {**proven_with, "/etc/systemd/system/ollama.service.d/x.conf": "77"},
    ):
        assert key(now) != key(proven_with)
    assert key({**proven_with, PROFILE_FILE: "88"}) == key(proven_with), (
        "nothing reads it, and a status does not either"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"overrides": {"intent": {"num_ctx": 2048}}},
        {"overrides": {"intent": {"max_used_mib": 12000}}},
        {"overrides": {"env": {"EXTRA": "1"}}},
        {"profile": "conservative"},
        {"load_requests": 9},
        {"backend": {"extends": "guide", "load": {"url": "http://127.0.0.1:8000/chat"}}},
        {"backend": {"extends": "guide", "unit": "other.service"}},
        {"models": [MODEL]},
    ],
    ids=str,
)
def test_the_key_of_a_proof_changes_with_what_is_declared(changes):
    assert good(declaration=declared(**changes))["proof_key"] != good()["proof_key"]


def test_digests_count_for_the_declared_models_alone_also_without_their_tag():
    tagged = [{"name": "llama3.1:latest", "digest": "d1"}, {"name": "other:1b", "digest": "d1"}]
    declaration = declared(models=["llama3.1"])

    def key(*digests):
        models = [{**model, "digest": digest} for model, digest in zip(tagged, digests)]
        return good(read(ollama__api__models=models), declaration)["proof_key"]

    assert key("d1", "d1") == key("d1", "d2")
    assert key("d1", "d1") != key("d2", "d1")


def test_a_proof_made_by_an_apply_that_found_ollama_stopped_holds_afterwards():
    declaration = declared(ollama={"version": "0.32.15"}, models=[MODEL])
    stopped = read(
        ollama__unit__active_state="inactive",
        ollama__process=None,
        ollama__api={"error": "refused", "version": None, "models": [], "loaded": [], "show": {}},
    )
    decision = good(stopped, declaration)
    after = read(ollama__api__show={MODEL: {"parameters": {"num_ctx": 2048}}})
    assert decision["proof_key"] != good(after, declaration)["proof_key"]
    assert decisions.key_of_proven(declaration, decision, after) == good(after, declaration)["proof_key"]


def test_a_proof_of_stable_does_not_hold_while_the_drop_in_is_still_to_be_written_and_holds_after():
    before = read(ollama__unit__environment={}, ollama__drop_ins__own=drop_in(None), ollama__process__environment={})
    assert good(before)["proof_key"] == good()["proof_key"]


def test_the_drop_in_of_a_quadlet_is_compared_with_what_stands_in_its_section():
    assert not good(read(ollama__drop_ins__own=drop_in(STABLE_ON_0_32, OF_QUADLET)))["drop_in_changed"]
    in_service = {**drop_in(STABLE_ON_0_32), "path": OF_QUADLET}
    decision = good(read(ollama__drop_ins__own=in_service))
    assert decision["drop_in_changed"] and [file["path"] for file in decision["files"]] == [OF_QUADLET]


# What changes, and what restarts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, files, restart",
    [
        pytest.param({"ollama__drop_ins__own": drop_in(None)}, [DROP_IN_PATH], ["ollama"], id="drop-in missing"),
        pytest.param(
            {"ollama__drop_ins__own": drop_in({**STABLE_ON_0_32, "OLLAMA_NUM_PARALLEL": "4"})},
            [DROP_IN_PATH],
            ["ollama"],
            id="drop-in differs",
        ),
        pytest.param(
            {"backend__env_files": [env_file(values={**STABLE_ENV, "CHAT_NUM_CTX": "8192"})]},
            [ENV_PATH],
            ["backend"],
            id="env differs",
        ),
        pytest.param(
            {"backend__env_files": [env_file(values={**STABLE_ENV, "CHAT_NUM_CTX": None})]},
            [ENV_PATH],
            ["backend"],
            id="env lacks a key",
        ),
        pytest.param(
            {"backend__env_files": [env_file(exists=False, sha256=None, values={})]},
            [ENV_PATH],
            ["backend"],
            id="env missing",
        ),
        pytest.param(
            {"ollama__drop_ins__own": drop_in(None), "backend__env_files": [env_file(values={})]},
            [DROP_IN_PATH, ENV_PATH],
            ["ollama", "backend"],
            id="both",
        ),
        pytest.param(
            {"backend__profile_file": env_file(PROFILE_FILE, values={}, exists=False, sha256=None)},
            [PROFILE_FILE],
            [],
            id="profile's file",
        ),
        pytest.param({"ollama__process__environment": {}}, [], ["ollama"], id="written but not read by the server"),
        pytest.param(
            {"ollama__unit__active_state": "failed", "ollama__process": None}, [], ["ollama"], id="Ollama failed"
        ),
        pytest.param({"backend__started_s": 4999.0}, [], ["backend"], id="started before its env file was written"),
        pytest.param({"backend__pids": [], "backend__started_s": None}, [], ["backend"], id="backend does not run"),
        pytest.param({"backend__health": {"ok": False}}, [], ["backend"], id="backend is not healthy"),
        pytest.param({"backend__started_s": None}, [], ["backend"], id="backend of unknown age"),
    ],
)
def test_only_what_changed_is_written_and_restarted(changes, files, restart):
    decision = good(read(**changes))
    assert [file["path"] for file in decision["files"]] == files
    assert (decision["restart"], decision["services"]["restart"]) == (restart, restart)
    assert (decision["acts"], decision["load_needed"]) == (True, True)
    assert decision["drop_in_changed"] is (DROP_IN_PATH in files)
    assert [file["path"] for file in decision["env_changed"]] == [path for path in files if path != DROP_IN_PATH]


def test_files_carry_the_hash_of_what_they_replace():
    decision = good(read(backend__env_files=[env_file(values={}, sha256="abc")], ollama__drop_ins__own=drop_in(None)))
    values = {key: [value] for key, value in STABLE_ENV.items()}
    env = {"keys": list(values), "values": values, "readers": ["python-dotenv"], "profile": None}
    assert decision["files"] == [
        {"path": DROP_IN_PATH, "sha256": None, "env": {"keys": list(STABLE_ON_0_32), "readers": []}},
        {"path": ENV_PATH, "sha256": "abc", "env": env},
    ]


def test_a_process_that_may_not_be_read_counts_as_what_systemd_would_start():
    assert good(read(ollama__process=None))["restart"] == []
    assert good(read(ollama__process=None, ollama__unit__environment={}))["restart"] == ["ollama"]


def test_a_server_that_does_not_answer_is_restarted_where_its_version_is_declared():
    host = read(ollama__api__error="connection refused", ollama__api__version=None)
    assert good(host, declared(ollama={"version": "0.32.15"}))["restart"] == ["ollama"]


@pytest.mark.parametrize(
    "unit",
    [
        {"active_state": "failed"},
        {"active_state": "activating", "sub_state": "auto-restart"},
        {"active_state": "active", "restarts": 3, "active_s": 2.5},  # for a moment, between two crashes
    ],
    ids=str,
)
def test_a_unit_that_does_not_come_up_is_refused_whatever_version_is_declared(unit):
    silent = "ollama.service is failed (failed); its journal: Error: mkdir /srv: permission denied"
    changes = {f"ollama__unit__{name}": value for name, value in unit.items()}
    host = read(
        ollama__api__error="refused",
        ollama__api__version=None,
        ollama__why_silent=silent,
        ollama__process=None,
        **changes,
    )
    for declaration in (declared(), declared(ollama={"version": "0.32.15"})):
        [problem] = decide(host, declaration)["problems"]
        assert "ollama.service does not come up" in problem and "mkdir /srv: permission denied" in problem
        assert "gpu_memory_ollama.version" not in problem


def test_a_version_is_offered_for_a_stopped_unit_alone():
    silent = {"ollama__api__error": "refused", "ollama__api__version": None}
    [stopped] = decide(read(ollama__unit__active_state="inactive", **silent))["problems"]
    [hung] = decide(read(**silent, ollama__unit__restarts=3, ollama__unit__active_s=7200.0))["problems"]
    assert decide(read(**silent))["problems"] == [hung]
    assert "start ollama.service, or set gpu_memory_ollama.version" in stopped
    assert (
        "gpu_memory_ollama.version" not in hung and "does not come up" not in hung and "restart ollama.service" in hung
    )


STARTS = "an apply starts it, and stops it again if that does not hold"


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_whoever_deploys_is_told_of_a_stopped_backend_that_an_apply_starts(state):
    host = read(backend__unit__active_state=state, backend__pids=[], backend__started_s=None)
    note = f"selo-backend.service is {state}: {STARTS}"
    assert note in good(host)["notes"]
    assert note not in decide(host, deploys=False)["notes"]
    assert "is inactive" not in str(good(read())["notes"])


def test_a_script_that_starts_the_server_and_wins_is_refused():
    script = {"path": "/opt/start.sh", "environment": {"OLLAMA_NUM_PARALLEL": "1"}}
    host = read(ollama__unit={**read()["ollama"]["unit"], "start_scripts": [script]})
    assert decide(host)["problems"] == []
    host["ollama"]["process"] = {**host["ollama"]["process"], "environment": {"OLLAMA_NUM_PARALLEL": "1"}}
    (problem,) = decide(host)["problems"]
    assert "/opt/start.sh" in problem and "OLLAMA_NUM_PARALLEL=1" in problem
    assert decide(host, deploys=False)["problems"] == []


def test_what_the_program_that_starts_the_server_may_set_is_noted_before_it_is_tried():
    host = read(ollama__unit__programs=["/opt/start.py"], ollama__unit__environment={}, ollama__unit__sources=[])
    host["ollama"]["process"] = {**host["ollama"]["process"], "environment": {"OLLAMA_NUM_PARALLEL": "8"}}
    assert "runs with OLLAMA_NUM_PARALLEL=8" in str(good(host)["notes"])
    assert "runs with" not in str(decide(host, deploys=False)["notes"])


def test_a_refused_apply_is_not_said_to_start_what_is_stopped():
    stopped = {"active_state": "inactive", "load_state": "loaded"}
    host = read(ollama__unit={**read()["ollama"]["unit"], **stopped})
    host["ollama"]["api"].update(error="connection refused", version=None)
    refused = decide(host)
    assert "start ollama.service" in str(refused["problems"]) and STARTS not in str(refused["notes"])
    assert STARTS in str(good(host, declared(ollama={"version": "0.32.15"}))["notes"])


def test_whoever_deploys_is_told_of_a_command_that_does_not_run():
    backend = {"kind": "command", "directory": "/srv", "command": "./run", "process_match": "run"}
    note = f"the backend's command does not run: {STARTS}"
    assert note in good(read(backend__pids=[]), declared(backend={"extends": "guide", **backend}))["notes"]
    assert note not in good(read(), declared(backend={"extends": "guide", **backend}))["notes"]


def test_a_unit_that_is_just_being_stopped_is_refused_where_it_would_be_changed():
    host = read(backend__unit__active_state="deactivating", backend__unit__sub_state="stop-sigterm")
    assert decide(host)["problems"] == [
        "selo-backend.service is stopping just now (stop-sigterm); run again when it has stopped"
    ]
    assert decide(host, deploys=False)["problems"] == []


THE_ROLE = {**drop_in({"OLLAMA_NUM_PARALLEL": "4"}), "writer": "the role ollama"}


def test_a_drop_in_of_the_role_ollama_is_not_replaced_where_something_would_be_lost():
    alone = ["OLLAMA_NUM_PARALLEL", "OLLAMA_MODELS", "HTTPS_PROXY"]
    host = read(ollama__drop_ins__own={**THE_ROLE, "alone": alone})
    assert decide(host)["problems"] == [
        f"{DROP_IN_PATH} was written by the role ollama, and OLLAMA_MODELS, HTTPS_PROXY in it would be lost: give that "
        "role another ollama_drop_in and run it once more, or set gpu_memory_ollama.take_over=true to replace it; "
        "remove brings it back"
    ]
    assert "an apply replaces it" not in str(decide(host)["notes"])
    assert decide(host, deploys=False)["problems"] == []
    assert good(host, declared(ollama={"take_over": True}))["drop_in_changed"]
    by_hand = {**THE_ROLE, "writer": "somebody else", "alone": ["LimitNOFILE="]}
    assert (
        "LimitNOFILE= in it would be lost: move it to a drop-in"
        in decide(read(ollama__drop_ins__own=by_hand))["problems"][0]
    )


def test_what_somebody_has_added_to_our_drop_in_is_not_written_over():
    own = {**drop_in({"OLLAMA_NUM_PARALLEL": "4"}), "writer": None, "alone": ["OLLAMA_KEEP_ALIVE", "LimitNOFILE="]}
    assert decide(read(ollama__drop_ins__own=own))["problems"] == [
        f"OLLAMA_KEEP_ALIVE, LimitNOFILE= in {DROP_IN_PATH}, which an apply writes anew, would be lost: move it to a "
        "drop-in of another name, such as override.conf beside it"
    ]
    assert decide(read(ollama__drop_ins__own=own), declared(ollama={"take_over": True}))["problems"]
    assert decide(read(ollama__drop_ins__own=own), deploys=False)["problems"] == []


def test_a_drop_in_of_the_role_ollama_with_nothing_but_our_variables_is_replaced_with_a_note():
    note = f"{DROP_IN_PATH} was written by the role ollama: an apply replaces it, and remove brings it back"
    decision = good(read(ollama__drop_ins__own={**THE_ROLE, "alone": ["OLLAMA_NUM_PARALLEL"]}))
    assert note in decision["notes"] and decision["drop_in_changed"]
    assert "was written by" not in str(good(read())["notes"])


def test_a_missing_env_file_of_a_profile_that_writes_none_is_no_change():
    profiles = {"p": {"intent": {"num_ctx": 4096, "num_parallel": 2, "max_loaded_models": 1, "max_used_mib": 12288}}}
    missing = env_file(exists=False, sha256=None, values={})
    backend = {"extends": "guide", "keys": {}}
    decision = good(read(backend__env_files=[missing]), declared(profile="p", profiles=profiles, backend=backend))
    assert decision["env_changed"] == []


def test_only_those_of_several_env_files_that_differ_are_written():
    other = "/etc/selo-ai/environment"
    backend = {"extends": "guide", "env_files": [{"path": ".env"}, {"path": other, "read_by": ["bash", "systemd"]}]}
    host = read(backend__env_files=[env_file(), env_file(other, values={})])
    assert [file["path"] for file in good(host, declared(backend=backend))["env_changed"]] == [other]


def test_a_file_of_which_nobody_says_who_reads_it_is_read_by_all():
    decision = good(read(backend__env_files=[{**env_file(values={}), "read_by": None}]))
    (env,) = [file["env"] for file in decision["files"] if file.get("env")]
    assert env["readers"] == ["python-dotenv", "bash", "systemd"]


SELO = {
    "extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"},
    "env_files": [{"path": ".env"}, {"path": "/etc/selo-ai/environment", "read_by": ["systemd"], "add_keys": False}],
}  # fmt: skip


@pytest.mark.parametrize(
    "values, exists, written",
    [
        ({"OLLAMA_NUM_GPU": "1"}, True, {"OLLAMA_NUM_GPU": "40"}),
        ({"OLLAMA_NUM_GPU": "1", "CHAT_NUM_CTX": "4096"}, True, {"OLLAMA_NUM_GPU": "40", "CHAT_NUM_CTX": "4096"}),
        ({"OLLAMA_NUM_GPU": "40"}, True, None),
        ({}, True, None),
        (None, False, None),
    ],
)
def test_a_file_without_add_keys_gets_only_what_it_has_already(values, exists, written):
    second = env_file("/etc/selo-ai/environment", values=values, exists=exists, parent_exists=False, add_keys=False)
    first = env_file(values={**STABLE_ENV, "OLLAMA_NUM_GPU": "40"}, add_keys=True)
    changed = good(read(backend__env_files=[first, second]), declared(backend=SELO))["env_changed"]
    assert [file["env"] for file in changed] == ([written] if written else [])


def test_an_intent_is_written_where_the_backend_takes_it_also_if_the_profile_does_not_name_the_variable():
    changed = good(read(backend__env_files=[env_file(add_keys=True)]), declared(backend=SELO))["env_changed"]
    assert [file["env"] for file in changed] == [{**STABLE_ENV, "OLLAMA_NUM_GPU": "40"}]


def test_verify_writes_and_restarts_nothing_but_knows_of_the_drift():
    host = proven()
    host["ollama"]["drop_ins"]["own"] = drop_in(None)
    decision = good(host, deploys=False)
    assert (decision["acts"], decision["proof"], decision["load_needed"]) == (False, None, True)


@pytest.mark.parametrize(
    "version, environment",
    [
        (
            "0.24.0",
            {**{k: v for k, v in STABLE_ON_0_32.items() if "FIT" not in k}, "OLLAMA_GPU_OVERHEAD": "4290772992"},
        ),
        ("0.32.15", STABLE_ON_0_32),
    ],
)
def test_the_drop_in_speaks_the_words_of_the_installed_version(version, environment):
    assert good(read(ollama__api__version=version))["ollama_environment"] == environment


def test_a_declared_version_wins_and_what_it_cannot_follow_is_noted():
    decision = good(read(ollama__api__version="0.0.0"), declared(ollama={"version": "0.3.9"}))
    assert decision["ollama_environment"] == {"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_MAX_LOADED_MODELS": "1"}
    assert decision["notes"] == [
        "Ollama 0.3.9 has no setting for margin_mib",
        "Ollama 0.3.9 has no setting for num_ctx",
    ]


# Kinds of backends --------------------------------------------------------------------------------------------------

NO_BACKEND = {
    "kind": "none", "unit": None, "pids": [], "started_s": None, "health": None, "env_files": [], "profile_file": None,
    "directory_exists": None,
}  # fmt: skip


def test_without_a_backend_the_load_goes_straight_to_ollama():
    decision = good(read(backend=NO_BACKEND), declared(backend="none", models=[MODEL]))
    assert (decision["files"], decision["restart"]) == ([], [])
    load = decision["load"]
    assert load["url"] == "http://127.0.0.1:11434/api/chat"
    assert {body["model"] for body in load["bodies"]} == {MODEL}
    # The server's own settings are what is proven; this one is of the reply alone.
    assert all(set(body["options"]) == {"num_predict"} for body in load["bodies"])
    assert (load["requests"], load["concurrency"]) == (3, 3)


def test_without_a_backend_only_ollama_restarts():
    host = read(backend=NO_BACKEND, ollama__drop_ins__own=drop_in(None))
    assert good(host, declared(backend="none", models=[MODEL]))["restart"] == ["ollama"]


def test_a_backend_that_is_a_command():
    backend = {"extends": "guide", "kind": "command"}
    host = read(backend__kind="command", backend__unit=None)
    assert good(host, declared(backend=backend))["restart"] == []
    host["backend"].update(pids=[], started_s=None)
    decision = good(host, declared(backend=backend))
    assert decision["restart"] == ["backend"]
    assert decision["services"]["backend"]["command"] == "python3 main.py"


def test_services_carry_what_a_restore_without_a_controller_needs_and_no_more():
    services = good()["services"]
    assert services["private_files"] == [ENV_PATH, PROFILE_FILE]
    assert services["ollama"] == {"unit": "ollama.service", "url": "http://127.0.0.1:11434", "timeout_s": 60}
    assert set(services["backend"]) == {
        "kind", "unit", "directory", "command", "user", "process_match", "health", "timeout_s",
    }  # fmt: skip


@pytest.mark.parametrize("wanted, parallel, requests", [(0, 2, 3), (0, 1, 2), (10, 2, 10)])
def test_one_chat_more_than_can_run_at_once(wanted, parallel, requests):
    load = decisions.load_request(
        declared(load_requests=wanted, overrides={"intent": {"num_parallel": parallel}}), read()
    )
    assert (load["requests"], load["concurrency"]) == (requests, requests)
    assert load["url"] == "http://127.0.0.1:8000/api/chat"


@pytest.mark.parametrize("place, prompts", [({"prompt_at": "message"}, "fill"), ({}, "guide")], ids=str)
def test_long_prompts_are_sent_only_where_a_backend_says_where_a_prompt_goes(place, prompts):
    ours = {"url": "http://127.0.0.1:8000/chat", "bodies": [{"message": "Hi"}], **place}
    declaration = declared(load="fill")
    declaration["backend"]["load"] = ours
    load = decisions.load_request(declaration, read())
    assert (load["prompts"], load["bodies"]) == (prompts, ours["bodies"])


def test_long_prompts_straight_to_ollama():
    assert decisions.load_request(declared(load="fill", backend="none", models=[MODEL]), read())["prompts"] == "fill"


EMBEDDER = "nomic-embed-text"
EMBEDS = {EMBEDDER: {"capabilities": ["embedding"]}}


URL = "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    "models, asked",
    [
        ([MODEL], [("chat", MODEL, 3)]),
        ([EMBEDDER, MODEL], [("chat", MODEL, 3), ("embed", EMBEDDER, 1)]),
        (["a", EMBEDDER, "b"], [("chat", "a", 3), ("chat", "b", 3), ("embed", EMBEDDER, 1)]),
        ([EMBEDDER], [("embed", EMBEDDER, 1)]),
    ],
)
def test_each_declared_model_is_asked_as_it_is_used(models, asked):
    """One after another, each with as many at once as run in parallel and one more."""
    load = decisions.load_request(declared(backend="none", models=models), read(ollama__api__show=EMBEDS))
    requests = [load, *load["others"]]
    assert [(one["url"].rpartition("/")[2], one["model"], one["requests"]) for one in requests] == asked
    assert {body["model"] for one in requests for body in one["bodies"]} == set(models)
    assert (load["concurrency"], load["listed_at"]) == (load["requests"], None)


def test_beside_a_backend_each_declared_model_may_have_to_be_asked_for():
    load = decisions.load_request(declared(models=[MODEL, EMBEDDER]), read(ollama__api__show=EMBEDS))
    assert load["url"] == "http://127.0.0.1:8000/api/chat"
    assert [(one["model"], one["url"]) for one in load["others"]] == [
        (MODEL, f"{URL}/api/chat"),
        (EMBEDDER, f"{URL}/api/embed"),
    ]
    assert load["listed_at"] == f"{URL}/api/ps"
    assert "model" not in load


def test_where_no_model_is_declared_nothing_is_asked_besides():
    load = decisions.load_request(declared(), read())
    # Whether it has used a model at all is looked for, too: one that was loaded before leaves no load in the log.
    assert (load["others"], load["listed_at"]) == ([], f"{URL}/api/ps")


def test_the_direct_load_with_a_timeout_of_ones_own():
    ours = {"extends": "none", "load": {"timeout": 400}}
    load = decisions.load_request(declared(backend=ours, models=[MODEL]), read())
    assert (load["timeout"], load["url"]) == (400, "http://127.0.0.1:11434/api/chat")


def test_a_part_of_a_presets_load_leaves_the_rest_as_it_was():
    load = decisions.load_request(declared(backend={"extends": "guide", "load": {"timeout": 400}}), read())
    assert (load["timeout"], load["url"], load["prompt_at"]) == (400, "http://127.0.0.1:8000/api/chat", "message")
    assert len(load["bodies"]) == 3


@pytest.mark.parametrize("tags", [[{"name": "gpt-oss:120b-cloud", "digest": "d", "remote": True}], []])
def test_a_cloud_model_is_refused(tags):
    model = "gpt-oss:120b-cloud"
    (problem,) = decide(read(ollama__api__models=tags), declared(backend="none", models=[model]))["problems"]
    assert f"{model} is a cloud model" in problem
    assert "take it out of gpu_memory_models" in problem


def test_a_model_of_this_host_that_its_tag_sends_to_the_cloud_is_refused():
    tags = [{"name": "own:8b-cloud", "digest": "d", "remote": False}]
    (problem,) = decide(read(ollama__api__models=tags), declared(backend="none", models=["Own:8b-cloud"]))["problems"]
    assert problem.startswith("Own:8b-cloud is on this host, but this Ollama sends whatever is asked of a tag")
    assert "ollama cp own:8b-cloud NAME" in problem


@pytest.mark.parametrize("name", [MODEL.upper(), f"registry.ollama.ai/library/{MODEL}", f"library/{MODEL}"])
def test_a_model_is_found_by_any_of_its_names(name):
    assert decide(declaration=declared(models=[name]))["problems"] == []
    key = good(declaration=declared(models=[name]))["proof_key"]
    other = read(ollama__api__models=[{"name": MODEL, "digest": "d2", "size": 1}])
    assert good(other, declared(models=[name]))["proof_key"] != key


@pytest.mark.parametrize("others, seconds", [(0, 240), (2, 480)])
def test_load_timeout(others, seconds):
    assert decisions.load_timeout_s({"timeout": 120, "others": [{}] * others}) == seconds


# Preflight ----------------------------------------------------------------------------------------------------------

LATER = "/etc/systemd/system/ollama.service.d/zzz-site.conf"
PARALLEL_4 = {"OLLAMA_NUM_PARALLEL": "4"}
PROBLEMS = {
    "a later drop-in that takes all back": (
        {"ollama__unit__sources": [source("drop-in", LATER, resets=True)]},
        {},
        [LATER, "takes every variable back", "empty Environment="],
    ),
    "an UnsetEnvironment, wherever it stands": (
        {"ollama__unit__sources": [source("drop-in", EARLIER, unsets=["OLLAMA_NUM_PARALLEL"])]},
        {},
        [EARLIER, "takes OLLAMA_NUM_PARALLEL away", "UnsetEnvironment="],
    ),
    "no NVML": ({"nvml": {"status": "library_missing", "message": "no library; install it"}}, {}, ["NVML: no library"]),
    "old driver": ({"nvml__driver_version": "470.256.02"}, {}, ["driver 470.256.02", "510"]),
    "no GPU": ({"nvml__gpus": []}, {}, ["shows no GPU", "lspci", "vfio-pci"]),
    "lost GPU": ({"nvml__gpus": [{"index": 0, "uuid": "GPU-1", "error": "is lost"}]}, {}, ["GPU 0 (GPU-1): is lost"]),
    "MIG": ({"nvml__gpus": [gpu(mig=True)]}, {}, ["GPU 0", "MIG", "nvidia-smi -i 0 -mig 0"]),
    "nobody may compute": (
        {"nvml__gpus": [gpu(compute_mode="prohibited")]},
        {},
        ["GPU 0", "Prohibited", "nvidia-smi -i 0 -c DEFAULT"],
    ),
    "another size of GPU": (
        {"nvml__gpus": [gpu(total_mib=12282)]},
        {},
        ["12282 MiB", "16 GB", "gpu_memory_other_sizes"],
    ),
    "small GPU": (
        {"nvml__gpus": [gpu(total_mib=12282)]},
        {"overrides": {"intent": {"max_used_mib": 12288}}},
        ["max_used_mib = 12288", "12282 MiB", "profile"],
    ),
    "reserved memory": (
        {"nvml__gpus": [gpu(total_mib=12400, reserved_mib=200)]},
        {"overrides": {"intent": {"max_used_mib": 12288}}},
        ["12400 MiB", "200 are reserved"],
    ),
    "second GPU small": ({"nvml__gpus": [gpu(), gpu(1, total_mib=2048)]}, {}, ["GPU 1", "2048 MiB"]),
    "systemctl fails": (
        {"ollama__unit": {"name": "ollama.service", "error": "no systemd"}},
        {},
        ["ollama.service: no systemd"],
    ),
    "no unit": (
        {"ollama__unit__load_state": "not-found", "ollama__api__version": None, "ollama__api__error": "refused"},
        {"ollama": {"version": "0.32.15"}},
        ["ollama.service is not-found", "gpu_memory_ollama.unit", "selo.gpu_memory.discover"],
    ),
    "no unit, but an Ollama": (
        {"ollama__unit__load_state": "not-found"},
        {},
        [
            "ollama.service is not-found",
            "answers at http://127.0.0.1:11434",
            "gpu_memory_ollama.unit",
            "compose:PROJECT/SERVICE",
        ],
    ),
    "masked unit": ({"ollama__unit__load_state": "masked"}, {}, ["is masked", "systemctl unmask ollama.service"]),
    "Ollama is down": (
        {"ollama__api__version": None, "ollama__api__error": "connection refused"},
        {},
        ["version", "refused", "start ollama"],
    ),
    "own build": ({"ollama__api__version": "0.0.0"}, {}, ["'0.0.0'", "no release", "gpu_memory_ollama.version"]),
    "no model": ({}, {"models": ["other:1b"]}, ["other:1b", MODEL, "ollama pull other:1b"]),
    "no model at all": ({"ollama__api__models": []}, {"models": ["a"]}, ["a is not", "none", "ollama pull a"]),
    "no backend unit": (
        {"backend__unit": {"name": "selo-backend.service", "load_state": "not-found"}},
        {},
        ["selo-backend.service is not-found", "gpu_memory_backend"],
    ),
    "no directory": (
        {"backend__directory_exists": False},
        {},
        ["selo-ai/backend is missing", "gpu_memory_backend.directory"],
    ),
    "unreadable env": (
        {"backend__env_files": [env_file(error="permission denied")]},
        {},
        [ENV_PATH, "permission denied"],
    ),
    "env file cannot be edited": (
        {"backend__env_files": [env_file(refusals=["/a/.env: A: no way of writing it"])]},
        {},
        ["/a/.env: A: no way of writing it"],
    ),
    "the profile's own file cannot be edited": (
        {"backend__profile_file": env_file(PROFILE_FILE, refusals=["the directory /a is missing; create it"])},
        {},
        ["the directory /a is missing; create it"],
    ),
    "both for one reason": (
        {
            "backend__env_files": [env_file(refusals=["the directory /a is missing"])],
            "backend__profile_file": env_file(PROFILE_FILE, refusals=["the directory /a is missing"]),
        },
        {},
        ["the directory /a is missing"],
    ),
    "no threshold": ({}, {"profile": "baseline"}, ["baseline", "max_used_mib", "gpu_memory_allow_unsafe"]),
    "a service not back": (
        {"state__restoring": {"generation": "0003", "reason": "x", "since": 0, "error": "x.service is failed"}},
        {},
        ["this host is going back to generation 0003; x.service is failed"],
    ),
    "lease": (
        {"state__lease": {"live": True, "holder": "ann applies stable", "until": "20:15"}},
        {},
        ["20:15", "ann applies stable"],
    ),
    "state": ({"state__error": "damaged"}, {}, ["cannot be read: damaged"]),
    "later drop-in": (
        {"ollama__drop_ins__others": [{"path": LATER, "environment": PARALLEL_4}]},
        {},
        [LATER, "OLLAMA_NUM_PARALLEL=4", "OLLAMA_NUM_PARALLEL=2", "take the line out"],
    ),
    "EnvironmentFile": (
        {"ollama__unit__environment_files": [{"path": "/etc/default/ollama", "environment": PARALLEL_4}]},
        {},
        ["EnvironmentFile /etc/default/ollama", "OLLAMA_NUM_PARALLEL=4", "take the line out"],
    ),
    "EnvironmentFile that is gone": (
        {"ollama__unit__missing": {"EnvironmentFile": ["/etc/site"]}},
        {},
        ["EnvironmentFile=/etc/site, which is not there", "or write EnvironmentFile=-/etc/site"],
    ),
    "directory of the backend's unit that is gone": (
        {"backend__unit__missing": {"WorkingDirectory": ["/srv/chat"]}},
        {},
        ["WorkingDirectory=/srv/chat, which is not there", "put it back, or name where it is now"],
    ),
    "user of the backend's unit that is gone": (
        {"backend__unit__missing": {"User": ["chat"]}},
        {},
        ["User=chat, which is not there", "useradd --system chat"],
    ),
    "transient unit": ({"ollama__unit__transient": True}, {}, ["is a transient unit", "give it a unit file"]),
    "read-only units": ({"ollama__drop_ins__refusals": ["/e is read-only; mount it"]}, {}, ["/e is read-only"]),
    "nothing to load": ({"backend": NO_BACKEND}, {"backend": "none"}, ["nothing to load", "gpu_memory_models"]),
    "bad declaration": ({}, {"verify": "x"}, ["gpu_memory_verify = 'x'"]),
    "another version than declared": ({}, {"ollama": {"version": "0.24.0"}}, ["0.24.0", "the server says"]),
}


def test_what_systemd_does_not_read_is_noted():
    odd = {"path": "/etc/environment", "problem": "it is for logins", "cure": "take it out"}
    noted = decide(read(ollama__drop_ins__oddities=[odd]))
    assert "/etc/environment: it is for logins; take it out" in noted["notes"]


def test_a_reload_is_noted_where_containers_use_the_gpu_and_one_comes():
    using = {"ollama__gpu_containers": ["docker 3f1c2ab90d5e"]}
    for host, comes in (
        (read(**using, ollama__drop_ins__own__sha256="old"), True),
        (read(**using), False),
        (read(), False),
    ):
        notes = decide(host)["notes"]
        assert any("docker 3f1c2ab90d5e uses the GPU here" in note for note in notes) is comes


def test_what_restarts_along_is_noted_where_something_restarts():
    along = {"ollama__unit__dependents": [{"unit": "site.service", "why": "PartOf=ollama.service"}]}
    for host, comes in (
        (read(**along, ollama__drop_ins__own__sha256="old"), True),
        (read(**along), False),
        (read(ollama__drop_ins__own__sha256="old"), False),
    ):
        notes = decide(host)["notes"]
        assert any("also restarts site.service (PartOf=ollama.service)" in note for note in notes) is comes


def test_a_backend_that_systemd_restarts_along_with_ollama_is_restarted_in_order():
    along = {"ollama__unit__dependents": [{"unit": "selo-backend.service", "why": "Requires=ollama.service"}]}
    known = {"backend__unit__id": "selo-backend.service"}
    decision = decide(read(**along, **known, ollama__drop_ins__own__sha256="old"))
    assert decision["restart"] == ["ollama", "backend"]
    assert not [note for note in decision["notes"] if "also restarts" in note]
    assert decide(read(**along, **known))["restart"] == []
    assert decide(read(**known, ollama__drop_ins__own__sha256="old"))["restart"] == ["ollama"]


@pytest.mark.parametrize("case", PROBLEMS)
def test_every_problem_is_one_message_and_nothing_is_done(case):
    host, declaration, said = PROBLEMS[case]
    decision = decide(read(**host), declared(**declaration))
    assert len(decision["problems"]) == 1, decision["problems"]
    for words in said:
        assert words in decision["problems"][0]
    assert (decision["acts"], decision["load_needed"]) == (False, False)


ONLY_FOR_DEPLOYING = {
    "a later drop-in that takes all back",
    "an UnsetEnvironment, wherever it stands",
    "unreadable env", "env file cannot be edited", "the profile's own file cannot be edited", "both for one reason",
    "no threshold", "state", "later drop-in", "EnvironmentFile", "EnvironmentFile that is gone", "transient unit",
    "read-only units", "directory of the backend's unit that is gone", "user of the backend's unit that is gone",
}  # fmt: skip


@pytest.mark.parametrize("case", PROBLEMS)
def test_verify_is_hindered_only_by_what_hinders_a_proof(case):
    host, declaration, _unused = PROBLEMS[case]
    assert bool(decide(read(**host), declared(**declaration), deploys=False)["problems"]) is (
        case not in ONLY_FOR_DEPLOYING
    )


def test_all_problems_come_at_once():
    host = read(
        nvml__gpus=[gpu(total_mib=8192), gpu(1, mig=True)],
        nvml__driver_version="470.1",
        ollama__unit={"name": "ollama.service", "error": "no systemd"},
        backend__unit={"name": "selo-backend.service", "error": "no systemd"},
        backend__directory_exists=False,
        backend__env_files=[env_file(error="permission denied")],
        state__lease={"live": True},
    )
    assert len(decide(host, declared(models=["a"], verify="x"))["problems"]) == 9


def test_problems_of_the_declaration_stand_beside_those_of_the_host():
    decision = decide(
        read(nvml={"status": "x", "message": "m"}, backend=NO_BACKEND), declared(profile="x", backend="y")
    )
    assert [text.split(" ")[0] for text in decision["problems"]] == [
        "gpu_memory_backend",
        "gpu_memory_profile",
        "NVML:",
        "nothing",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"ollama__drop_ins__others": [{"path": EARLIER, "environment": PARALLEL_4}]},
        {"ollama__unit__sources": [source("drop-in", EARLIER, resets=True)]},
        {"ollama__unit__sources": [source("drop-in", LATER, unsets=["OLLAMA_NUM_PARALLEL=4", "OLLAMA_DEBUG"])]},
        {"ollama__drop_ins__others": [{"path": LATER, "environment": {"OLLAMA_NUM_PARALLEL": "2"}}]},
        {"ollama__drop_ins__others": [{"path": LATER, "environment": {"OLLAMA_KEEP_ALIVE": "1h"}}]},
        {"ollama__unit__environment_files": [{"path": "/e", "environment": {"OLLAMA_GPU_LAYERS": "1"}}]},
        {"state__lease": {"live": False}},
        {"nvml__driver_version": None},
        {"nvml__gpus": [gpu(total_mib=15360)]},
    ],
    ids=str,
)
def test_what_is_no_problem(changes):
    good(read(**changes))


def test_what_is_declared_can_let_a_host_pass():
    good(read(), declared(profile="baseline", allow_unsafe="yes"))
    good(read(ollama__api__version="0.0.0"), declared(ollama={"version": "0.32.15"}))
    good(read(backend=NO_BACKEND), declared(backend="none", verify="never"))
    good(read(ollama__api__models=[{"name": "a:latest", "digest": "d"}]), declared(models=["a"]))


def test_a_load_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(decisions.prediction, "cannot_fit", lambda predicted, threshold: f"more than {threshold}")
    assert decide()["problems"] == ["more than 12288"]
    assert decide(deploys=False)["problems"] == []


@pytest.mark.parametrize(
    ("then", "now", "holds"),
    [
        ({"boot": "b", "ahead_s": 7200.0}, {"boot": "b", "ahead_s": 0.0}, False),  # set back since: 20 minutes ago
        ({"boot": "b", "ahead_s": 0.0}, {"boot": "b", "ahead_s": 0.0}, True),
        ({"boot": "a", "ahead_s": 7200.0}, {"boot": "b", "ahead_s": 0.0}, True),
        (None, {"boot": "b", "ahead_s": 0.0}, True),
        ({"boot": "b", "ahead_s": 7200.0}, None, True),
    ],
)
def test_what_failed_after_a_proof_is_told_by_what_a_clock_was_set_to_since(then, now, holds):
    failure = {"severity": "fatal", "at": NOW - 4800, "line": "out of memory"}
    host = proven(read(ollama__journal=journal(failures=[failure], clock=now)), age_s=3600, clock=then)
    assert (good(host)["proof"] is not None) is holds


def test_a_file_that_was_touched_restarts_nothing_where_the_proof_was_of_what_it_says():
    touched: dict[str, Any] = {"backend__env_files": [env_file(modified_s=9000.0)]}
    assert good(read(**touched))["restart"] == ["backend"]
    host = proven(read(**touched), backend=backend_run.of_proven(read()))
    assert (good(host)["restart"], good(host)["load_needed"]) == ([], False)
    host["backend"]["env_files"][0]["sha256"] = "1" * 64
    assert good(host)["restart"] == ["backend"]


def test_a_file_from_the_future_restarts_nothing():
    host = read(backend__env_files=[env_file(modified_s=None)])
    assert good(host)["restart"] == []


def test_strict_refuses_for_a_note_unless_it_is_accepted():
    host = read(ollama__api__version="0.0.0")
    old = {"ollama": {"version": "0.3.9"}}
    refused = decide(host, declared(**old, strict=True))
    assert refused["problems"] == [f"Ollama 0.3.9 has no setting for {name}" for name in ("margin_mib", "num_ctx")]
    accepted = decide(host, declared(**old, strict=True, accepted_notes=["has no setting for"]))
    assert (accepted["problems"], accepted["notes"]) == ([], [])


def test_a_profiles_own_file_is_kept_as_one_that_nobody_reads():
    absent = {**read()["backend"]["profile_file"], "exists": False, "sha256": None, "values": {}}
    decision = good(read(backend__profile_file=absent))
    (kept,) = [file for file in decision["files"] if file["path"] == absent["path"]]
    assert kept["env"]["profile"] == "stable"
    assert kept["env"]["values"] == {key: [value] for key, value in STABLE_ENV.items()}
