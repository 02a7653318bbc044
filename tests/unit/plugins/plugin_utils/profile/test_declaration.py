from __future__ import annotations

import re

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration
from ansible_collections.selo.gpu_memory.tests.unit.builders import (
    DIRECTORY,
    ENV_PATH,
    PROFILE_FILE,
    changed,
    declared,
    presets,
    variables,
)
from hypothesis import given
from hypothesis import strategies as st


def test_the_roles_defaults_are_good():
    value = declared()
    assert value["problems"] == []
    assert value["profile"]["label"] == "stable"
    assert value["profile"]["max_used_mib"] == 12288
    assert value["ollama"] == {
        "unit": "ollama.service",
        "url": "http://127.0.0.1:11434",
        "timeout_s": 60,
        "version": None,
        "take_over": False,
    }
    assert [file["path"] for file in value["backend"]["env_files"]] == [ENV_PATH]
    assert value["profile_file"] == {"path": PROFILE_FILE, "read_by": ["python-dotenv"], "env": value["profile"]["env"]}
    assert set(value["profile"]["env"]) <= set(value["env_keys"])
    assert (value["verify"], value["models"], value["strict"], value["allow_unsafe"]) == ("changed", [], False, False)
    assert (value["proof_max_age"], value["load_requests"]) == (7, 0)


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_good(name):
    backend, problems = declaration.resolve_backend(name, presets())
    assert problems == []
    assert backend["kind"] == presets()[name]["kind"]


def test_a_file_of_the_profile_for_each_profile():
    assert declared(profile="conservative")["profile_file"]["path"] == f"{DIRECTORY}/.env.conservative-16gb"
    assert declared(backend="none")["profile_file"] is None


def test_a_backend_over_a_preset():
    backend, problems = declaration.resolve_backend(
        {"extends": "guide", "directory": "/srv/b", "timeout_s": "60"}, presets()
    )
    assert problems == []
    assert (backend["directory"], backend["unit"], backend["timeout_s"]) == ("/srv/b", "selo-backend.service", 60)
    assert backend["env_files"] == [{"path": "/srv/b/.env", "read_by": ["python-dotenv"]}]


def test_absolute_env_files_stay_where_they_are():
    backend, _unused = declaration.resolve_backend({"extends": "guide", "env_files": [{"path": "/etc/x"}]}, presets())
    assert backend["env_files"] == [{"path": "/etc/x"}]


@pytest.mark.parametrize(
    "part, own, left",
    [
        ("keys", {"gpu_layers": "NGL"}, {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "NGL"}),
        ("keys", {"gpu_layers": None}, {"num_ctx": "CHAT_NUM_CTX"}),
        ("keys", {}, {}),
        ("sends", {"num_ctx": 4096}, {"num_batch": 512, "num_ctx": 4096}),
        ("sends", {"num_batch": None}, {}),
        ("health", {"status": 204}, {"url": "http://127.0.0.1:8000/health", "status": 204}),
    ],
)
def test_of_a_mapping_in_a_preset_what_is_not_said_stays(part, own, left):
    backend, problems = declaration.resolve_backend({"extends": "guide", part: own}, presets())
    assert (problems, backend[part]) == ([], left)


def test_null_takes_a_part_of_the_preset_away():
    backend, problems = declaration.resolve_backend({"extends": "guide", "health": None, "env_files": None}, presets())
    assert problems == []
    assert (backend["health"], backend["env_files"]) == ({}, [])


def test_a_backend_of_kind_none_has_nothing_but_a_load():
    load = {"url": "http://127.0.0.1/x"}
    backend, problems = declaration.resolve_backend({"extends": "guide", "kind": "none", "load": load}, presets())
    assert problems == []
    assert (backend["kind"], backend["env_files"], backend["keys"], backend["load"]) == ("none", [], {}, load)
    assert declaration.resolve_backend({"extends": "guide", "kind": "none"}, presets())[0]["load"] == {}


def test_a_backend_from_nothing():
    mine = {"kind": "command", "directory": "/srv/b", "command": "./run", "process_match": r"\./run"}
    backend, problems = declaration.resolve_backend(mine, presets())
    assert problems == []
    assert {key: backend[key] for key in mine} == mine


def test_models_of_the_host_win_over_those_of_the_profile():
    profiles = {"p": {"extends": "stable", "models": ["a"]}}
    assert declared(profile="p", profiles=profiles)["models"] == ["a"]
    assert declared(profile="p", profiles=profiles, models=[" b "])["models"] == ["b"]
    assert declared(models=None)["models"] == []


@pytest.mark.parametrize(
    "value, wanted",
    [
        (True, True), (False, False), ("yes", True), ("no", False), ("on", True), ("off", False), ("1", True),
        ("0", False), (" True ", True), ("FALSE", False), (1, True), (0, False),
    ],
)  # fmt: skip
def test_booleans_of_the_command_line(value, wanted):
    assert declared(strict=value)["strict"] is wanted


@pytest.mark.parametrize(
    ("restore_after", "backend", "seconds", "alone"),
    [
        (0, "guide", 240, 120),
        (0, "none", 240, 120),
        (0, {"extends": "guide", "timeout_s": 600}, 660, 120),
        (0, {"extends": "none", "load": {"url": "http://x/", "timeout": 900}}, 1020, 120),
        (30, "guide", 30, 30),
    ],
)
def test_a_restore_waits_until_services_and_load_had_their_time(restore_after, backend, seconds, alone):
    found = declared(restore_after=restore_after, backend=backend)
    assert (found["restore_after"], found["restore_after_alone"]) == (seconds, alone)


@pytest.mark.parametrize("name", ["restore_after", "proof_max_age", "load_requests", "sample_interval_ms"])
def test_numbers_of_the_command_line(name):
    assert declared(**{name: "30"})[name] == 30


def test_an_address_of_ollama_has_no_slash_at_its_end():
    assert declared(ollama={"url": "http://[::1]:11434/"})["ollama"]["url"] == "http://[::1]:11434"


def test_run_level_variables_in_the_inventory_are_named():
    (problem,) = declaration.declared_of(variables(), ["gpu_memory_batches"])["problems"]
    assert "gpu_memory_batches" in problem
    assert "-e" in problem


B = "gpu_memory_backend"
KINDS = "none, unit, command"
COMMAND = {"kind": "command", "directory": "/srv", "command": "x", "process_match": "x"}


def guide(**changes):
    return {"backend": {"extends": "guide", **changes}}


# What was declared, and what the one message must say, in order.
INVALID = {
    "backend is null": ({"backend": None}, [B, "None", "guide", "mapping"]),
    "backend is a list": ({"backend": ["guide"]}, [B, "['guide']", "guide", "mapping"]),
    "backend is a number": ({"backend": 3}, [B, "3", "guide", "mapping"]),
    "no such preset": ({"backend": "django"}, [B, "'django'", "guide"]),
    "extends no such preset": ({"backend": {"extends": "x"}}, [B, "'x'", "guide"]),
    "extends a list": ({"backend": {"extends": ["guide"]}}, [B, "['guide']", "guide"]),
    "extends null": ({"backend": {"extends": None}}, [B, "None", "guide"]),
    "unknown key": (guide(port=80), [f"{B}.port", "not known", "directory"]),
    "unknown key by number": ({"backend": {"extends": "guide", 1: 2}}, [f"{B}.1", "not known", "directory"]),
    "kind": (guide(kind="docker"), [f"{B}.kind", "'docker'", KINDS]),
    "kind is a list": (guide(kind=["unit"]), [f"{B}.kind", "['unit']", KINDS]),
    **{
        f"unit {unit!r}": (guide(unit=unit), [f"{B}.unit", repr(unit), "name of a unit, such as"])
        for unit in ("backend", "a b.service", "a/b.service", "", None, ["a.service"], "x.timer", "a.service\n")
    },
    "command without a command": ({"backend": {**COMMAND, "command": " "}}, [f"{B}.command", "' '", "kind command"]),
    "command without a match": ({"backend": {**COMMAND, "process_match": ""}}, [f"{B}.process_match", "''", "command"]),
    "command without a directory": ({"backend": {**COMMAND, "directory": None}}, [f"{B}.directory", "None", "command"]),
    "command is a list": ({"backend": guide(command=["python3", "main.py"])["backend"]}, [f"{B}.command", "text"]),
    "match is no pattern": (guide(process_match="("), [f"{B}.process_match", "'('", "regular expression"]),
    "match repeats too often": (guide(process_match="a{99999999999}"), [f"{B}.process_match", "regular expression"]),
    "directory is relative": (guide(directory="srv"), [f"{B}.directory", "'srv'", "absolute"]),
    "directory is a number": (guide(directory=1, env_files=[]), [f"{B}.directory", "1", "text"]),
    "profile_file is a list": (guide(profile_file=[".env"]), [f"{B}.profile_file", "['.env']", "text"]),
    "user is a number": (guide(user=1000), [f"{B}.user", "1000", "text"]),
    "env_files is text": (guide(env_files=".env"), [f"{B}.env_files", "'.env'", "list of mappings"]),
    "env_files holds text": (guide(env_files=[".env"]), [f"{B}.env_files", "'.env'", "path and read_by"]),
    "env file without a path": (guide(env_files=[{"read_by": []}]), [f"{B}.env_files", "path and read_by"]),
    "env file with a number": (guide(env_files=[{"path": 1}]), [f"{B}.env_files", "path and read_by"]),
    "env file with a typo": (guide(env_files=[{"path": "a", "readby": []}]), [f"{B}.env_files.readby", "read_by"]),
    "relative env file without a directory": (
        {"backend": {"kind": "unit", "unit": "a.service", "env_files": [{"path": ".env"}]}},
        [f"{B}.env_files", "'.env'", "absolute"],
    ),
    **{
        f"read_by {readers!r}": (
            guide(env_files=[{"path": "a", "read_by": readers}]), [f"{B}.env_files", repr(readers), "bash, systemd"]
        )
        for readers in ("bash", ["zsh"], [1], [["bash"]], 3)
    },
    "keys is a list": (guide(keys=["num_ctx"]), [f"{B}.keys", "mapping of intents"]),
    "keys has no such intent": (guide(keys={"ctx": "A"}), [f"{B}.keys", "'ctx'", "num_ctx"]),
    "keys has no variable": (guide(keys={"num_ctx": "A B"}), [f"{B}.keys", "'A B'", "num_ctx"]),
    "keys has a list": (guide(keys={"num_ctx": ["A"]}), [f"{B}.keys", "['A']", "num_ctx"]),
    "sends is text": (guide(sends="num_batch"), [f"{B}.sends", "'num_batch'", "mapping of options"]),
    "sends no such option": (guide(sends={"x": 1}), [f"{B}.sends.x", "1", "num_batch"]),
    "sends no number": (guide(sends={"num_batch": "x"}), [f"{B}.sends.num_batch", "'x'", "number"]),
    "reads is text": (guide(reads="A"), [f"{B}.reads", "'A'", "list of names"]),
    "reads has no name": (guide(reads=["a-b"]), [f"{B}.reads", "'a-b'", "name of a variable"]),
    "health is text": (guide(health="http://x/"), [f"{B}.health", "'http://x/'", "url and status"]),
    "health has a typo": (guide(health={"url": "http://x/", "code": 1}), [f"{B}.health.code", "status, url"]),
    "health without url": (guide(health={"url": None}), [f"{B}.health.url", "None", "http address"]),
    "health.status": (guide(health={"url": "http://x/", "status": "ok"}), [f"{B}.health.status", "'ok'", "100 to 599"]),
    "load is a list": (guide(load=[]), [f"{B}.load", "[]", "mapping with url"]),
    "load of kind none is a number": ({"backend": {"kind": "none", "load": 5}}, [f"{B}.load", "5", "mapping with url"]),
    "load has a typo": (guide(load={"url": "http://x/", "body": 1}), [f"{B}.load.body", "bodies, expect_status"]),
    "load.method": (guide(load={"url": "http://x/", "method": "post"}), [f"{B}.load.method", "'post'", "GET, POST"]),
    "load.bodies": (guide(load={"url": "http://x/", "bodies": {}}), [f"{B}.load.bodies", "{}", "list"]),
    "load.headers": (guide(load={"url": "http://x/", "headers": ["a"]}), [f"{B}.load.headers", "mapping", "list"]),
    "load.expect_status": (guide(load={"url": "http://x/", "expect_status": 99}), [f"{B}.load.expect_status", "99"]),
    "load.timeout": (guide(load={"url": "http://x/", "timeout": 0}), [f"{B}.load.timeout", "0", "seconds, from 1"]),
    **{
        f"load.url {url!r}": (guide(load={"url": url}), [f"{B}.load.url", repr(url), "http address"])
        for url in ("localhost:8000", "ftp://x/", "http://", "http://a b/", "http://x:99999/", "http://x:a/", 80, None)
    },
    **{
        f"timeout_s {value!r}": (guide(timeout_s=value), [f"{B}.timeout_s", repr(value), "seconds, from 1 to 3600"])
        for value in (0, 3601, "3 min", True, 1.5)
    },
    "load.headers with a bad name": (
        guide(load={"url": "http://x/", "headers": {"A B": "x"}}), [f"{B}.load.headers", "'A B'", "name of a header"]
    ),
    **{
        f"{part}.url with a password": (
            guide(**{part: {"url": "http://u:hunter2@x/"}}), [f"{B}.{part}.url", "no user and no password", "header"]
        )
        for part in ("health", "load")
    },
    "load.url with a control character": (guide(load={"url": "http://x/\x07"}), [f"{B}.load.url", "x07"]),
    **{
        f"{key} of two lines": (guide(env_files=[], **{key: f"{value}\nx"}), [f"{B}.{key}", r"\nx", "one line of text"])
        for key, value in [("directory", "/srv"), ("command", "./run"), ("user", "selo"), ("profile_file", ".env")]
    },
    "command with an open quote": (guide(command="./run 'a"), [f"{B}.command", "./run 'a", "no command line", "quot"]),
    "profile_file elsewhere": (guide(profile_file="../.env"), [f"{B}.profile_file", "'../.env'", "name of a file"]),
    "profile_file is the env file": (guide(profile_file=".env"), [f"{B}.profile_file", "'.env'", "another file"]),
    "an env file twice": (
        guide(env_files=[{"path": ".env"}, {"path": "./.env"}]), [f"{B}.env_files", ENV_PATH, "twice"]
    ),
    "an env file of two lines": (guide(env_files=[{"path": "a\nb"}]), [f"{B}.env_files", r"'a\nb'", "one line"]),
    "a variable for two intents": (
        guide(keys={"num_ctx": "A", "gpu_layers": "A"}), [f"{B}.keys", "'A'", "one intent, not several"]
    ),
    "Ollama as its own backend": (guide(unit="ollama.service"), [f"{B}.unit", "'ollama.service'", "another unit"]),
    "ollama.url with a password": (
        {"ollama": {"url": "http://u:hunter2@x:1"}}, ["gpu_memory_ollama.url", "no user and no password"]
    ),
    "ollama is text": ({"ollama": "http://x"}, ["gpu_memory_ollama", "'http://x'", "mapping with unit and url"]),
    "ollama is null": ({"ollama": None}, ["gpu_memory_ollama", "None", "mapping with unit and url"]),
    "ollama has a typo": ({"ollama": {"port": 1}}, ["gpu_memory_ollama.port", "not known", "unit, url"]),
    "ollama.unit": ({"ollama": {"unit": "ollama"}}, ["gpu_memory_ollama.unit", "'ollama'", "ollama.service"]),
    "ollama.unit of Compose without a service": ({"ollama": {"unit": "compose:llm"}}, ["compose:PROJECT/SERVICE"]),
    "ollama.unit is null": ({"ollama": {"unit": None}}, ["gpu_memory_ollama.unit", "None", "ollama.service"]),
    "ollama.url": ({"ollama": {"url": "0.0.0.0:11434"}}, ["gpu_memory_ollama.url", "'0.0.0.0:11434'", "http address"]),
    "ollama.url port": ({"ollama": {"url": "http://x:0x1"}}, ["gpu_memory_ollama.url", "'http://x:0x1'", "http"]),
    "ollama.timeout_s": ({"ollama": {"timeout_s": "x"}}, ["gpu_memory_ollama.timeout_s", "'x'", "from 1 to 3600"]),
    "ollama.take_over": ({"ollama": {"take_over": "x"}}, ["gpu_memory_ollama.take_over", "'x'", "true or false"]),
    "ollama.version": ({"ollama": {"version": 0.32}}, ["gpu_memory_ollama.version", "0.32", "such as 0.32.15"]),
    **{
        f"{name} = {value!r}": ({name: value}, [f"gpu_memory_{name}", repr(value), allowed])
        for name, value, allowed in [
            ("restore_after", 29, "seconds, from 30 to 3600"),
            ("restore_after", "4m", "seconds"),
            ("restore_after", -1, "seconds"),
            ("restore_after", None, "seconds"),
            ("proof_max_age", -1, "days, from 0 to 3650"),
            ("proof_max_age", "week", "days"),
            ("load_requests", -1, "requests"),
            ("load_requests", True, "requests"),
            ("load_requests", 1001, "from 0 to 1000"),
            ("sample_interval_ms", 9, "milliseconds, from 10 to 100"),
            ("sample_interval_ms", 101, "milliseconds"),
            ("strict", "maybe", "true or false"),
            ("strict", None, "true or false"),
            ("allow_unsafe", "", "true or false"),
            ("allow_unsafe", [], "true or false"),
            ("allow_unsafe", 2, "true or false"),
            ("verify", "sometimes", "changed, always, never"),
            ("verify", False, "changed, always, never"),
            ("verify", ["always"], "changed, always, never"),
            ("verify", None, "changed, always, never"),
            ("models", "llama3.1:8b,,", "list of model names"),
            ("models", "", "list of model names"),
            ("report_dir", "", "path on the controller, where the records go; . is where you stand"),
            ("report_dir", ["a"], "path on the controller"),
            ("report_dir", "a\nb", "path on the controller"),
            ("gpu_gb_per_s", "fast", "GB/s, from 0"),
            ("gpu_gb_per_s", -1, "GB/s, from 0"),
            ("host_gb_per_s", True, "GB/s, from 0"),
            ("host_gb_per_s", float("nan"), "GB/s, from 0"),
            ("show_secrets", "perhaps", "true or false"),
            ("accepted_notes", 3, "list of words"),
            ("accepted_notes", [""], "list of words"),
            ("models", [1], "list of model names"),
            ("models", [""], "list of model names"),
            ("models", {}, "list of model names"),
            ("profile", "fast", "baseline, conservative, stable"),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_bad_input_gets_one_message_that_names_key_value_and_what_is_allowed(case):
    changes, said = INVALID[case]
    problems = declared(**changes)["problems"]
    assert len(problems) == 1, problems
    assert re.search(".*".join(map(re.escape, said)), problems[0], re.DOTALL), problems[0]


def test_all_problems_come_at_once():
    value = declared(
        profile="x",
        backend={"extends": "guide", "kind": "x", "keys": 1, "load": 2},
        ollama=3,
        verify=4,
        models=5,
        strict=6,
    )
    assert len(value["problems"]) == 8
    assert value["profile"] is None
    assert value["backend"] == declaration.NO_BACKEND


SECRET = "hunter2"


@pytest.mark.parametrize(
    "changes",
    [
        guide(load={"url": "http://x/", "headers": [{"X": SECRET}]}),
        guide(load={"url": "http://x/", "headers": {"X": f"{SECRET}\n"}}),
        guide(load={"url": f"http://u:{SECRET}@x/"}),
        guide(health={"url": f"http://u:{SECRET}@x y/"}),
        guide(load=[{"headers": {"X": SECRET}}]),
        {"backend": [{"load": {"headers": {"X": SECRET}}}]},
        guide(load={"url": "http://x/", "bodies": {"password": SECRET}}),
        {"ollama": {"url": f"http://:{SECRET}@x"}},
    ],
)
def test_no_message_shows_a_secret(changes):
    problems = declared(**changes)["problems"]
    assert problems
    assert SECRET not in str(problems)


def test_models_and_notes_of_the_command_line():
    assert declared(models="llama3.1:8b, b")["models"] == ["llama3.1:8b", "b"]
    assert declared(accepted_notes="caps nothing")["accepted_notes"] == ["caps nothing"]


def test_a_header_of_the_load_is_never_in_a_message():
    headers = [{"Authorization": "Bearer s3cret"}]
    problems = declared(backend={"extends": "guide", "load": {"url": "http://x/", "headers": headers}})["problems"]
    assert problems
    assert "s3cret" not in str(problems)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("guide")
KEYS = st.sampled_from(
    [*sorted(declaration.BACKEND_KEYS), "url", "path", "read_by", "status", "version", "env", "intent"]
)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers(), inner, max_size=5)
)
NAMES = st.sampled_from(
    [
        "profile",
        "profiles",
        "overrides",
        "backend",
        "ollama",
        "models",
        "verify",
        "proof_max_age",
        "load_requests",
        "sample_interval_ms",
        "restore_after",
        "allow_unsafe",
        "strict",
    ]  # fmt: skip
)


@given(st.dictionaries(NAMES, JUNK, max_size=4))
def test_junk_never_raises(changes):
    value = declared(**changes)
    assert all(isinstance(problem, str) for problem in value["problems"])
    assert value["problems"] or (value["profile"] and value["backend"]["kind"] in declaration.BACKEND_KINDS)


@given(st.sampled_from(["guide", "none"]), st.dictionaries(KEYS, JUNK, max_size=4))
def test_junk_inside_a_backend_never_raises(base, changes):
    backend, problems = declaration.resolve_backend({"extends": base, **changes}, presets())
    assert problems or all(file["path"].startswith("/") for file in backend["env_files"])


def test_presets_are_not_changed_by_what_is_declared():
    before = presets()
    mine = changed(before, {})
    declaration.resolve_backend({"extends": "guide", "directory": "/srv/b"}, mine)
    assert mine == before


def test_a_fallback_is_a_whole_declaration_of_its_own():
    value = declared(fallback_profile="conservative")
    assert value["problems"] == []
    assert (value["profile"]["name"], value["fallback"]["profile"]["name"]) == ("stable", "conservative")
    assert value["fallback"]["profile_file"]["path"].endswith(".env.conservative-16gb")
    assert value["fallback"]["fallback"] is None


@pytest.mark.parametrize("name", ["", "stable"])
def test_no_fallback_or_to_the_same_profile_is_none(name):
    assert declared(fallback_profile=name)["fallback"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fallback_profile": "tiny"}, ["gpu_memory_fallback_profile: ", "'tiny'"]),
        ({"fallback_profile": "baseline", "allow_unsafe": True}, ["gpu_memory_fallback_profile: ", "no threshold"]),
        ({"before_restart": "drain.yml"}, ["gpu_memory_before_restart = 'drain.yml'", "tasks and commands"]),
        ({"before_restart": {"task": "x"}}, ["gpu_memory_before_restart.task is not known", "commands, tasks"]),
        ({"after_proof": {"tasks": ["x"]}}, ["gpu_memory_after_proof.tasks = ['x']"]),
        ({"after_proof": {"commands": "true"}}, ["gpu_memory_after_proof.commands = 'true'", "list of commands"]),
        ({"after_proof": {"commands": [["true"]]}}, ["gpu_memory_after_proof.commands"]),
    ],
)
def test_a_fallback_or_a_hook_that_cannot_be_is_told(changes, words):
    (problem,) = declared(**changes)["problems"]
    for word in words:
        assert word in problem


def test_a_problem_of_both_profiles_is_told_once():
    problems = declared(fallback_profile="conservative", verify="often")["problems"]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("profle", "profile"),
        ("max_fail_percent", "max_fail_percentage"),
        ("model", "models"),
        ("host", "hosts"),
        ("batch", "batches"),
        ("fallback_profil", "fallback_profile"),
        ("discover_wrte", "discover_write"),
    ],
)
def test_a_variable_that_is_nearly_one_of_ours_is_a_problem(name, meant):
    assert declaration.misspelt([f"gpu_memory_{name}", "gpu_memory_profile"], variables()) == [
        f"gpu_memory_{name} is no variable of this collection; did you mean gpu_memory_{meant}?"
    ]


@pytest.mark.parametrize(
    "name",
    ["gpu_memory_rack", "gpu_memory_mode", "gpu_memory_profiles_of_site", "gpu_mem_profile", "__gpu_memory_profil"],
)
def test_a_variable_for_other_purposes_is_none(name):
    assert declaration.misspelt([name], variables()) == []


def test_what_is_known_is_never_misspelt():
    assert declaration.misspelt([*variables(), *declaration.RUN_LEVEL, *declaration.OF_PLAYBOOKS], variables()) == []
