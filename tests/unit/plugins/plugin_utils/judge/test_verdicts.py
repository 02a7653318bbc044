from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import verdicts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift
from ansible_collections.selo.gpu_memory.tests.unit.builders import (
    MODEL,
    NOW,
    RUNNER,
    STABLE_ON_0_32,
    changed,
    declared,
    drop_in,
    env_file,
    gpu,
    holder,
    journal,
    load,
    process,
    read,
)
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_prediction import show


def judge(the_load=None, after=None, declaration=None):
    return verdicts.judge_load(declaration or declared(), the_load or load(), after or read())


def rows(after=None, declaration=None, the_load=None):
    """The settings by name."""
    settings = drift.drift(declaration or declared(), after or read(), the_load or load())
    assert len({row["name"] for row in settings}) == len(settings)
    return {row["name"]: row for row in settings}


def state(name, **kwargs):
    row = rows(**kwargs)[name]
    return row["state"], row["effect"]


def runner(*changes: str) -> list[str]:
    """The runner's command line with flags changed, as "-ngl 20"; "-ngl" alone takes the flag away."""
    command = list(RUNNER)
    for change in changes:
        flag, _unused, value = change.partition(" ")
        place = command.index(flag)
        command[place : place + 2] = [flag, value] if value else []
    return command


def seen(command: list[str], **the_journal):
    """What is read and measured where the only runner is this one."""
    one = {**journal()["last_load"], "command": command, **the_journal}
    after = read(
        ollama__runners=[{"pid": 400, "command": command, "environment": STABLE_ON_0_32}],
        ollama__journal=journal(loads=[one], last_load=one),
    )
    return {"the_load": load(processes=[process(command=command)]), "after": after}


def test_a_context_that_was_not_filled_proves_nothing():
    asked = load(load__longest_asked_tokens=3584)
    for evaluated, verdict in ((1, "inconclusive"), (3593, "pass"), (None, "pass")):
        prompts = [] if evaluated is None else [[NOW, evaluated]]
        assert judge(asked, read(ollama__journal=journal(longest_prompts=prompts, most_reused=3592)))[0] == verdict


def test_the_longest_prompt_of_a_log_that_was_cut_is_not_that_of_the_load():
    cut = journal(longest_prompts=[[NOW, 20]], log={"problem": None, "dropped": 0, "cut": True, "lines": 9})
    assert judge(load(load__longest_asked_tokens=3584), read(ollama__journal=cut))[0] == "pass"


def test_what_was_evaluated_for_another_model_does_not_count():
    asked = load(load__longest_asked_tokens=3584, load__finished_epoch=NOW + 5)
    after = read(ollama__journal=journal(longest_prompts=[[NOW + 4, 10], [NOW + 9, 3593]]))
    verdict, (reason,) = judge(asked, after)
    assert (verdict, "evaluated has 10" in reason) == ("inconclusive", True)


@pytest.mark.parametrize(
    "figures",
    [
        {"load__ok": 2},
        {"load__ok": 0, "load__wanted": None},
        {"load__others": [{"model": "e", "wanted": 1, "ok": 0, "failed": 0}]},
    ],
)
def test_a_load_of_which_requests_are_missing_never_passes(figures):
    found, reasons = judge(load(**{"load__wanted": 3, **figures}))
    assert found == "fail"
    assert "to be sent" in " ".join(reasons)


@pytest.mark.parametrize("evaluated, verdict", [(1799, "pass"), (20, "inconclusive"), (None, "pass")])
def test_a_model_that_was_asked_for_itself_must_have_been_filled_too(evaluated, verdict):
    other = {"model": "e", "ok": 1, "failed": 0, "longest_asked_tokens": 1792, "longest_prompt_tokens": evaluated}
    found, reasons = judge(load(load__others=[other]))
    assert found == verdict
    assert all(reason.startswith("e: the load asked for prompts of up to 1792 tokens") for reason in reasons)


@pytest.mark.parametrize("backend", ["none", "guide"])
def test_a_model_that_was_not_loaded_is_named(backend):
    declaration = declared(backend=backend, models=[MODEL.upper(), "other"])
    assert judge(load(load__loaded=[MODEL]), declaration=declaration) == (
        "inconclusive",
        ["other was not loaded in the test, so nothing is proven of it"],
    )
    assert judge(load(load__loaded=[MODEL, "library/other:latest"]), declaration=declaration)[0] == "pass"


def test_what_is_not_known_to_be_loaded_proves_nothing():
    verdict, (reason,) = judge(load(load__loaded=None), declaration=declared(models=[MODEL]))
    assert verdict == "inconclusive"
    assert reason.startswith("Ollama at http://127.0.0.1:11434 did not tell which models it had loaded")
    assert reason.endswith(f"nothing is proven of {MODEL}")
    assert judge(load(load__loaded=None))[0] == "pass"  # none was declared


EMBEDS = {"capabilities": ["embedding"], "blob": "/blobs/e", "model_info": {"general.architecture": "bert"}}
EMBEDDER = ["llama-server", "--model", "/blobs/e", "-c", "2048", "-np", "1", "--embedding", "-b", "2048"]


def test_a_host_with_an_embedder_alone_is_held_to_what_an_embedder_can_have():
    shown = {**EMBEDS, "model_info": {**EMBEDS["model_info"], "bert.context_length": 2048}}
    found = seen(EMBEDDER, offloaded=13, offloadable=13)
    after = changed(found["after"], {"ollama.api.show": {"e": shown}})
    declaration = declared(backend="none", models=["e"])
    embedded = changed(found["the_load"], {"load.model": "e", "load.loaded": ["e"]})
    assert judge(embedded, after, declaration) == ("pass", [])
    settings = {row["name"]: (row["state"], row["effect"]) for row in drift.drift(declaration, after, embedded)}
    assert settings["OLLAMA_NUM_PARALLEL"] == ("in force", "runner has -np 1, as any of this kind of model")
    assert settings["OLLAMA_CONTEXT_LENGTH"][1] == "the context is 2048, all that the model was trained for"
    assert settings["num_batch"][0] == "no effect"
    untrained = changed(after, {"ollama.api.show.e": EMBEDS})
    assert judge(embedded, untrained, declaration)[0] == "fail"  # 2048 of 4096, and nothing says why


def test_a_model_that_ollama_gives_one_slot():
    shown = {"blob": "/blobs/a", "details": {"family": "qwen35"}}
    found = seen(runner("-np 1", "-c 4096"))
    assert judge(found["the_load"], found["after"])[0] == "fail"
    assert judge(found["the_load"], changed(found["after"], {"ollama.api.show": {MODEL: shown}}))[0] == "pass"


def test_effects_are_not_those_of_an_embedder_nor_of_a_model_that_the_backend_did_not_use():
    big = ["llama-server", "--model", "/blobs/b", "-c", "4096", "-np", "2"]
    after = read(ollama__api__show={"e": EMBEDS, "b": {"blob": "/blobs/b"}})
    processes = [process(command=big), process(command=EMBEDDER), process()]
    for model, others, total in (
        (None, ["e", "b"], 8192),
        (None, [], 4096),
        ("a", ["b", "e"], 4096),  # without a backend all are asked alike
    ):
        figures = {"load.model": model, "load.others": [{"model": one} for one in others]}
        assert drift.effects(changed(load(processes=processes), figures), after)["num_ctx_total"] == total


NO_LOADS = journal(loads=[], last_load=None)


# Effects and settings -----------------------------------------------------------------------------------------------


def test_a_host_on_stable_as_the_guide_has_it():
    found = rows()
    assert {name: (row["state"], row["read_by"]) for name, row in found.items()} == {
        "OLLAMA_GPU_LAYERS": ("no effect", "backend"),
        "CHAT_NUM_CTX": ("in force", "backend"),
        "TORCH_CUDA_MEMORY_FRACTION": ("no effect", "nobody"),
        "PYTORCH_CUDA_ALLOC_CONF": ("partial", "backend"),
        "OLLAMA_NUM_PARALLEL": ("in force", "Ollama"),
        "OLLAMA_MAX_LOADED_MODELS": ("in force", "Ollama"),
        "OLLAMA_CONTEXT_LENGTH": ("in force", "Ollama"),
        "LLAMA_ARG_FIT_TARGET": ("void", "Ollama"),
        "num_batch": ("in force", "backend"),
    }
    assert all(row["effect"] for row in found.values())
    assert found["CHAT_NUM_CTX"]["effect"] == "runner has -c 8192 (= 4096 x 2)"
    assert found["LLAMA_ARG_FIT_TARGET"]["effect"] == "requests carry num_gpu=40, which switches Ollama's fitting off"
    assert found["OLLAMA_GPU_LAYERS"]["effect"] == (
        "40 caps nothing, since the model has 33 layers; 33 of 33 layers are on the GPU"
    )


@pytest.mark.parametrize(
    "wanted, sent, offloaded, offloadable, wanted_state",
    [
        (40, "-ngl 40", 33, 33, "no effect"),
        (33, "-ngl 33", 33, 33, "no effect"),
        (20, "-ngl 20", 20, 33, "in force"),
        (0, "-ngl 0", 0, 33, "in force"),
        (20, "-ngl 20", 15, 33, "instead"),
        (40, "-ngl 40", 20, 33, "instead"),
        (40, "-ngl", 33, 33, "no effect"),  # no request carries it
        (40, "-ngl 40", None, None, "partial"),
    ],
)
def test_layers(wanted, sent, offloaded, offloadable, wanted_state):
    host = seen(runner(sent), offloaded=offloaded, offloadable=offloadable)
    declaration = declared(overrides={"intent": {"gpu_layers": wanted}})
    host["after"]["backend"]["env_files"] = [env_file(values=declaration["profile"]["env"])]
    assert state("OLLAMA_GPU_LAYERS", declaration=declaration, **host)[0] == wanted_state


@pytest.mark.parametrize(
    "flags, wanted",
    [
        (("-c 8192", "-np 2"), ("in force", "runner has -c 8192 (= 4096 x 2)")),
        (("-c 16384", "-np 2"), ("instead", "runner has -c 16384 (= 8192 x 2)")),
        (("-c 4096", "-np 1"), ("in force", "runner has -c 4096 (= 4096 x 1)")),
        (("-c", "-np"), ("in force", "/api/ps has context_length 4096")),
    ],
)
def test_context(flags, wanted):
    assert state("CHAT_NUM_CTX", **seen(runner(*flags))) == wanted


STABLE_ON_0_24 = {
    "OLLAMA_NUM_PARALLEL": "2",
    "OLLAMA_MAX_LOADED_MODELS": "1",
    "OLLAMA_CONTEXT_LENGTH": "4096",
    "OLLAMA_GPU_OVERHEAD": "4290772992",
}
SENT = {"num_ctx_total": 8192, "num_parallel": 2, "num_batch": 512, "num_gpu": -1}


@pytest.mark.parametrize(
    "name, sent, wanted",
    [
        ("CHAT_NUM_CTX", {}, ("in force", "runner was sent KvSize:8192 (= 4096 x 2)")),
        ("CHAT_NUM_CTX", {"num_parallel": 1}, ("instead", "runner was sent KvSize:8192 (= 8192 x 1)")),
        ("OLLAMA_NUM_PARALLEL", {}, ("in force", "runner was sent Parallel:2")),
        ("OLLAMA_NUM_PARALLEL", {"num_parallel": 1}, ("instead", "runner was sent Parallel:1")),
        ("OLLAMA_CONTEXT_LENGTH", {}, ("in force", "the server config says 4096")),
        ("OLLAMA_CONTEXT_LENGTH", {"num_ctx_total": 4096}, ("instead", "requests carry their own num_ctx: 2048")),
        ("OLLAMA_GPU_OVERHEAD", {}, ("in force", "the server config says 4290772992")),
        (
            "OLLAMA_GPU_OVERHEAD",
            {"num_gpu": 40},
            ("void", "requests carry num_gpu=40, which switches Ollama's fitting off"),
        ),
        ("OLLAMA_GPU_LAYERS", {}, ("no effect", "no request carries it to Ollama; 33 of 33 layers are on the GPU")),
    ],
)
def test_effects_on_a_runner_that_was_sent_its_settings(name, sent, wanted):
    command = ["/usr/local/bin/ollama", "runner", "--model", "/blobs/a", "--port", "4711"]
    host = seen(command, sent={**SENT, **sent})
    host["after"] = changed(
        host["after"],
        {
            "ollama.api.version": "0.24.0",
            "ollama.drop_ins.own": drop_in(STABLE_ON_0_24),
            "ollama.unit.environment": STABLE_ON_0_24,
            "ollama.process.environment": STABLE_ON_0_24,
            "ollama.journal.server_config": STABLE_ON_0_24,
        },
    )
    assert state(name, **host) == wanted


@pytest.mark.parametrize(
    "name, changes, wanted",
    [
        ("OLLAMA_NUM_PARALLEL", {}, ("in force", "runner has -np 2")),
        (
            "OLLAMA_NUM_PARALLEL",
            {"process__environment": {**STABLE_ON_0_32, "OLLAMA_NUM_PARALLEL": "4"}},
            ("instead", "the server was started with OLLAMA_NUM_PARALLEL=4"),
        ),
        ("OLLAMA_NUM_PARALLEL", {"process__environment": {}}, ("instead", "the server lacks it")),
        ("OLLAMA_NUM_PARALLEL", {"process": None}, ("partial", "not read back")),
        (
            "OLLAMA_MAX_LOADED_MODELS",
            {"journal__server_config": {"OLLAMA_MAX_LOADED_MODELS": "0"}},
            ("instead", "the server config says 0"),
        ),
        (
            "OLLAMA_MAX_LOADED_MODELS",
            {"journal__server_config": {"OLLAMA_MAX_LOADED_MODELS": ""}},
            ("instead", "the server config says nothing"),
        ),
        ("OLLAMA_MAX_LOADED_MODELS", {}, ("in force", "the server config says 1")),
        (
            "OLLAMA_MAX_LOADED_MODELS",
            {"journal__server_config": None, "runners": []},
            ("partial", "the server was started with it; its effect is not read back"),
        ),
        ("OLLAMA_MAX_LOADED_MODELS", {"journal__server_config": None}, ("in force", "the runner was started with it")),
    ],
)
def test_settings_of_the_server(name, changes, wanted):
    after = read(**{f"ollama__{path}": value for path, value in changes.items()})
    assert state(name, after=after) == wanted


def test_a_margin_is_in_force_where_no_request_carries_num_gpu():
    assert state("LLAMA_ARG_FIT_TARGET", **seen(runner("-ngl")))[0] == "in force"


def test_requests_with_a_context_of_their_own_are_seen():
    host = seen(runner("-c 4096"))
    assert state("OLLAMA_CONTEXT_LENGTH", **host) == ("instead", "requests carry their own num_ctx: 2048")
    host["after"]["ollama"]["process"]["environment"].pop("OLLAMA_CONTEXT_LENGTH")
    host = seen(runner())
    host["after"]["ollama"]["process"]["environment"].pop("OLLAMA_CONTEXT_LENGTH")
    assert state("OLLAMA_CONTEXT_LENGTH", **host)[0] == "partial"


def test_a_parallel_that_ollama_took_back_is_instead():
    assert state("OLLAMA_NUM_PARALLEL", **seen(runner("-np 1"))) == ("instead", "runner has -np 1")


def test_what_nobody_reads_says_so():
    declaration = declared(backend="none", models=[MODEL], overrides={"env": {"OLLAMA_NUM_GPU": "1", "MINE": "2"}})
    found = rows(declaration=declaration)
    for name in ("OLLAMA_GPU_LAYERS", "OLLAMA_NUM_GPU", "TORCH_CUDA_MEMORY_FRACTION", "MINE", "CHAT_NUM_CTX"):
        assert (found[name]["state"], found[name]["read_by"]) == ("no effect", "nobody")
    assert "no release of Ollama reads it" in found["OLLAMA_GPU_LAYERS"]["effect"]


def test_the_runner_of_another_ollama_says_nothing_of_this_one():
    other = {"pid": 812, "command": "llama-server", "kind": "unit", "name": "b.service", "user": None, "alone": False}
    both = load(
        processes=[process(peak_mib=12000, pid=812, command=["llama-server", "-c", "512", "-np", "1"]), process()]
    )
    found = rows(after=read(ollama__others=[other]), the_load=both)
    assert (found["OLLAMA_NUM_PARALLEL"]["state"], found["OLLAMA_NUM_PARALLEL"]["effect"]) == (
        "in force", "runner has -np 2",
    )  # fmt: skip


def test_without_anything_read_back_nothing_is_claimed():
    after = read(ollama__runners=[], ollama__process=None, ollama__api__loaded=[], ollama__journal=journal(
        loads=[], last_load=None, server_config=None
    ))  # fmt: skip
    states = {row["state"] for row in rows(after=after, the_load=load(processes=[])).values()}
    assert states == {"partial", "no effect"}


SELO = {"extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"}}


def test_a_key_that_the_backend_needs_and_the_profile_does_not_name_is_ours():
    file = env_file(values={**read()["backend"]["env_files"][0]["values"], "OLLAMA_NUM_GPU": "40"})
    found = rows(after=read(backend__env_files=[file]), declaration=declared(backend=SELO))
    ours, the_profile_s = found["OLLAMA_NUM_GPU"], found["OLLAMA_GPU_LAYERS"]
    assert (ours["wanted"], ours["state"], ours["set_by"]) == ("40", "in force", "collection")
    assert ours["effect"] == "33 of 33 layers are on the GPU"
    assert (the_profile_s["state"], the_profile_s["set_by"]) == ("no effect", "profile")


def test_what_a_backend_reads_itself_is_no_setting_that_nobody_reads():
    declaration = declared(backend={"extends": "guide", "reads": ["TORCH_CUDA_MEMORY_FRACTION"]})
    assert state("TORCH_CUDA_MEMORY_FRACTION", declaration=declaration)[0] == "partial"


@pytest.mark.parametrize(
    "kept, models, through, planned",
    [
        (1, ["a"], "guide", 1),
        (1, ["a", "b", "c"], "guide", 9),
        (2, ["a", "b", "c"], "guide", 9),
        (3, ["a", "b", "c"], "guide", 3),
        (1, ["a", "b", "c"], "none", 3),  # one after another
        (4, [], "guide", 1),
    ],
)
def test_planned_loads(kept, models, through, planned):
    overrides = {"intent": {"max_loaded_models": kept}}
    assert verdicts.planned_loads(declared(models=models, backend=through, overrides=overrides), 3) == planned


def test_a_reload_is_a_load_of_what_was_loaded_before():
    commands = [["llama-server", "--model", name, "--port", str(port)] for port, name in enumerate("abcacb")]
    loads = [{"command": command, "started": True} for command in commands]
    assert verdicts.reloads({"loads": loads}) == 3
    assert verdicts.reloads({"loads": [*loads, {"command": commands[0], "started": False}]}) == 3


def test_effects_are_those_of_the_largest_runner_and_its_own_load():
    embedder = ["llama-server", "--model", "/blobs/embed", "-c", "512", "-np", "1"]
    chat = {**journal()["last_load"], "offloaded": 10}
    small = {**chat, "command": embedder, "offloaded": 25, "offloadable": 25}
    after = read(ollama__journal=journal(loads=[chat, small], last_load=small))
    the_load = load(processes=[process(), process(pid=401, command=embedder, peak_mib=300)])
    effect = drift.effects(the_load, after)
    assert (effect["num_ctx_total"], effect["offloaded"], effect["offloadable"]) == (8192, 10, 33)


@pytest.mark.parametrize(
    "processes, runners, last, wanted",
    [
        ([process()], [], None, True),
        ([], [{"pid": 1, "command": RUNNER, "environment": {}}], None, True),
        ([], [], journal()["last_load"], True),
        ([process("Xorg")], [], None, False),
    ],
)
def test_a_runner_is_seen_in_any_of_three_places(processes, runners, last, wanted):
    after = read(ollama__runners=runners, ollama__journal=journal(loads=[], last_load=last))
    effect = drift.effects(load(processes=processes), after)
    assert effect["runner"] is wanted
    assert effect["num_gpu"] == (40 if wanted else None)


# The verdict on a load ----------------------------------------------------------------------------------------------

OOM = {"severity": "fatal", "at": 1.0, "line": "cudaMalloc failed: out of memory"}
GONE = {"severity": "fatal", "at": 2.0, "line": "llama-server process has terminated: exit status 1"}


def test_pass():
    assert judge() == ("pass", [])


def test_what_answered_nothing_was_not_measured():
    assert verdicts.memory_split(load(), read())["loaded"] is True
    assert verdicts.memory_split(load(load__ok=0), read())["loaded"] is False
    assert verdicts.memory_split(load(load__ok=0, load__others=[{"ok": 1}]), read())["loaded"] is True


def test_a_model_that_a_client_had_loaded_is_named_and_says_nothing_against_the_profile():
    loads = [{**journal()["last_load"], "command": ["llama-server", "--model", blob]} for blob in ("a", "b", "a")]
    declaration = declared(models=[MODEL])
    known = {"show": {MODEL: {"blob": "a"}}, "names": {"b": "qwen2.5:3b"}, "version": "0.32.15"}
    after = read(ollama__journal=journal(loads=loads), ollama__api={**read()["ollama"]["api"], **known})
    verdict, reasons = judge(after=after, declaration=declaration)
    assert verdict == "inconclusive", reasons
    assert [reason.split(" was loaded")[0] for reason in reasons] == ["qwen2.5:3b"]
    verdict, reasons = judge(load(breached=True, msg="over"), after=after, declaration=declaration)
    assert (verdict, reasons[-1].split(" was loaded")[0]) == ("fail", "qwen2.5:3b")
    known["names"] = {}
    after = read(ollama__journal=journal(loads=loads), ollama__api={**read()["ollama"]["api"], **known})
    assert judge(after=after, declaration=declaration)[0] == "fail"


def test_a_bounded_peak_passes():
    assert judge(load(evidence="bounded")) == ("pass", [])


@pytest.mark.parametrize(
    "blobs, others, beyond",
    [
        (["c", "a", "b"], ["a", "b"], 0),  # the backend uses one that was not declared
        (["c", "c", "a", "b"], ["a", "b"], 1),
        (["a", "b"], ["b"], 0),
        (["a", "a"], ["a"], 0),  # with the backend's options, and then without
        (["a", "a", "a"], ["a"], 1),
        (["a", "a", "b"], ["b"], 1),
    ],
)
def test_a_model_that_is_asked_for_besides_may_be_loaded_anew(blobs, others, beyond):
    loads = [{**journal()["last_load"], "command": ["llama-server", "--model", blob]} for blob in blobs]
    after = read(ollama__journal=journal(loads=loads), ollama__api__show={name: {"blob": name} for name in "ab"})
    used = sorted(set(blobs) - set(others)) or ["a"]
    figures = {"requests": 3, "model": None, "used": used, "others": [{"model": name} for name in others]}
    declaration = declared(models=sorted({*blobs} - {"c"}), overrides={"intent": {"max_loaded_models": 3}})
    assert verdicts.reloads_beyond_plan(declaration, after, figures) == beyond


@pytest.mark.parametrize(
    "used, loads, verdict",
    [
        (["x:latest"], [], "pass"),
        ([], [{**journal()["last_load"], "at": NOW + 9}], "inconclusive"),  # by what was asked for besides
        ([], [], "inconclusive"),
        ([], [journal()["last_load"]], "pass"),  # for so short a time that no look has seen it
        (None, [], "pass"),  # nothing was declared, and so nothing looked at
    ],
)
def test_a_backend_that_asks_another_ollama_proves_nothing_of_this_one(used, loads, verdict):
    the_load = load(load__finished_epoch=NOW + 5, load__used=used)
    if verdict == "inconclusive":  # a runner of the other one was seen, which has other settings
        the_load["processes"][0]["command"] = runner("-np 1")
    found, reasons = judge(the_load, read(ollama__journal__loads=loads))
    assert found == verdict
    assert all("requests made Ollama at http://127.0.0.1:11434 use no model" in reason for reason in reasons)


@pytest.mark.parametrize(
    "the_load, after, words",
    [
        pytest.param(
            {"breached": True, "msg": "GPU 0 used 13000 of 12288"}, {}, "GPU 0 used 13000 of 12288", id="breach"
        ),
        pytest.param({"breached": True}, {}, "the load test failed", id="breach without words"),
        pytest.param({"load__failed": 2}, {}, "2 of 3 requests failed", id="failed requests"),
        pytest.param(
            {}, {"failures": [GONE, OOM]}, "cudaMalloc failed: out of memory", id="the journal's plainest line"
        ),
        pytest.param({}, {"failures": [GONE]}, "process has terminated", id="the journal's only line"),
    ],
)
def test_fail(the_load, after, words):
    after = {f"ollama__journal__{name}": value for name, value in after.items()}
    verdict, (reason,) = judge(load(**the_load), read(**after))
    assert verdict == "fail"
    assert words in reason


@pytest.mark.parametrize("severity", ["recovered", "warning"])
def test_what_is_not_fatal_does_not_fail(severity):
    assert judge(after=read(ollama__journal__failures=[{**OOM, "severity": severity}]))[0] == "pass"


def test_a_model_on_the_cpu_fails_however_little_memory_it_takes():
    host = seen(runner("-ngl 1"), offloaded=1)
    host["the_load"]["peak_used_mib"] = 1500
    verdict, reasons = judge(host["the_load"], host["after"])
    assert verdict == "fail"
    assert reasons == [
        "1 of 33 layers are on the GPU, 33 were planned",
        "requests carry num_gpu=1, which the backend takes from OLLAMA_GPU_LAYERS; it should be 40",
    ]


def test_a_model_on_the_cpu_fails_also_where_no_line_tells_its_layers():
    on_cpu = [{"name": MODEL, "size": 9000, "size_vram": 0}]
    silent = {**journal()["last_load"], "offloaded": None, "offloadable": None}
    after = read(ollama__journal=journal(loads=[silent], last_load=silent), ollama__api__loaded=on_cpu)
    assert judge(after=after) == ("fail", [f"{MODEL} runs on the CPU alone, as /api/ps says"])


def test_a_loaded_model_of_no_size_is_on_the_cpu_whatever_the_line_of_the_layers_says():
    no_device = {**journal()["last_load"], "buffers_mib": {}, "on_host": ["model", "output", "KV", "compute"]}
    after = read(
        ollama__journal=journal(loads=[no_device], last_load=no_device),
        ollama__api__loaded=[{"name": MODEL, "size": 0, "size_vram": 0}],
    )
    assert judge(after=after) == (
        "fail",
        [
            f"{MODEL} runs on the CPU alone, as /api/ps says",
            "a model: all of it is on the CPU by its buffers, though 33 of 33 layers are said to be on the GPU",
        ],
    )


def test_until_029_a_model_of_no_size_is_still_being_loaded():
    loading = [*read()["ollama"]["api"]["loaded"], {"name": "other", "size": 0, "size_vram": 0}]
    after = read(ollama__api__loaded=loading, ollama__api__version="0.24.0")
    assert not [reason for reason in judge(after=after)[1] if "runs on the CPU" in reason]


def test_a_cache_on_the_cpu_fails_though_api_ps_has_the_model_on_the_gpu():
    on_host = {
        **journal()["last_load"],
        "buffers_mib": {"CUDA0 model": 7605.33, "CUDA0 compute": 120.06},
        "on_host": ["model", "output", "KV", "compute"],
    }
    verdict, reasons = judge(after=read(ollama__journal=journal(loads=[on_host], last_load=on_host)))
    assert verdict == "fail"
    assert "its cache is on the CPU by its buffers" in reasons[0]
    log = {"where": "the journal", "problem": None, "dropped": 3, "cut": False, "lines": 12}
    missing = read(ollama__journal=journal(loads=[on_host], last_load=on_host, log=log))
    assert judge(after=missing)[0] != "fail"


def test_experts_that_overflow_to_the_cpu_fail_unless_that_is_accepted():
    overflowing = {**journal()["last_load"], "overflowing": 7}
    after = read(ollama__journal=journal(loads=[overflowing], last_load=overflowing))
    why = "parts of 7 of the 33 layers on the GPU, such as experts, are on the CPU, since not everything fits"
    assert judge(after=after) == ("fail", [why])
    assert judge(after=after, declaration=declared(accepted_notes=["such as experts"])) == ("pass", [])


def test_who_keeps_it_there_is_named():
    no_device = {**journal()["last_load"], "buffers_mib": {}, "on_host": ["model", "KV"]}
    after = read(
        ollama__journal=journal(loads=[no_device], last_load=no_device),
        ollama__process__environment={**STABLE_ON_0_32, "LLAMA_ARG_DEVICE": "none"},
    )
    assert "; LLAMA_ARG_DEVICE=none, whoever started the server set it" in judge(after=after)[1][0]


def test_tensors_that_the_environment_keeps_on_the_cpu_fail_unless_that_is_accepted():
    after = read(
        ollama__process__environment={**STABLE_ON_0_32, "LLAMA_ARG_OVERRIDE_TENSOR": "blk.[0-4].ffn_.*=CPU"},
        ollama__api__show={MODEL: show("llama31-8b-q8_0")},
    )
    verdict, reasons = judge(after=after)
    assert verdict == "fail"
    assert reasons == [
        f"{MODEL}: LLAMA_ARG_OVERRIDE_TENSOR=blk.[0-4].ffn_.*=CPU keeps tensors of 5 of its layers on the CPU; whoever "
        "started the server set it"
    ]
    accepting = declared(accepted_notes=["LLAMA_ARG_OVERRIDE_TENSOR"])
    assert judge(after=after, declaration=accepting) == ("pass", [])
    without_experts = read(
        ollama__process__environment={**STABLE_ON_0_32, "LLAMA_ARG_CPU_MOE": "1"},
        ollama__api__show={MODEL: show("llama31-8b-q8_0")},
    )
    assert judge(after=without_experts) == ("pass", [])


def test_the_line_of_the_layers_alone_proves_no_gpu():
    bare = {**journal()["last_load"], "buffers_mib": {}, "on_host": []}
    after = read(ollama__journal=journal(loads=[bare], last_load=bare), ollama__api__loaded=[])
    assert judge(after=after) == (
        "inconclusive",
        ["no buffer on a GPU was read back, and the line of the layers alone proves none"],
    )


def test_a_planned_cap_that_is_kept_passes():
    host = seen(runner("-ngl 20"), offloaded=20)
    declaration = declared(overrides={"intent": {"gpu_layers": 20}})
    assert judge(host["the_load"], host["after"], declaration) == ("pass", [])


def test_a_model_that_is_planned_for_the_cpu_may_run_there():
    host = seen(runner("-ngl 0"), offloaded=0)
    host["after"]["ollama"]["api"]["loaded"] = [{"name": MODEL, "size": 9000, "size_vram": 0}]
    declaration = declared(overrides={"intent": {"gpu_layers": 0}})
    assert judge(host["the_load"], host["after"], declaration) == ("pass", [])


def test_without_a_planned_cap_all_layers_are_wanted():
    profiles = {"p": {"intent": {"num_ctx": 4096, "num_parallel": 2, "max_used_mib": 12288}}}
    host = seen(runner("-ngl"), offloaded=32)
    verdict, reasons = judge(host["the_load"], host["after"], declared(profile="p", profiles=profiles))
    assert (verdict, reasons) == ("fail", ["32 of 33 layers are on the GPU, 33 were planned"])


def test_every_model_that_was_loaded_is_looked_at():
    chat, spilled = journal()["last_load"], {**journal()["last_load"], "command": ["other"], "offloaded": 3}
    after = read(ollama__journal=journal(loads=[spilled, chat], last_load=chat))
    declaration = declared(models=[MODEL, "other:1b"])
    assert judge(after=after, declaration=declaration)[0] == "fail"


@pytest.mark.parametrize(
    "flags, name", [(("-np 1", "-c 4096"), "OLLAMA_NUM_PARALLEL=2"), (("-c 16384",), "CHAT_NUM_CTX=4096")]
)
def test_a_setting_that_is_not_in_force_fails(flags, name):
    host = seen(runner(*flags))
    verdict, reasons = judge(host["the_load"], host["after"])
    assert verdict == "fail"
    assert any(reason.startswith(f"{name} is not in force: ") for reason in reasons)


def test_no_effect_and_void_do_not_fail():
    assert {"no effect", "void"} <= {row["state"] for row in rows().values()}
    assert judge()[0] == "pass"


@pytest.mark.parametrize(
    "loads, models, beyond",
    [
        ([], [], 0),
        ([True], [], 0),
        ([True, True], [], 1),
        ([True, True], ["a", "b"], 0),
        # stable keeps one model loaded, so each of the three turns may load both
        ([True] * 6, ["a", "b"], 0),
        ([True] * 7, ["a", "b"], 1),
        ([False, True], [], 0),  # a load that died is a failure, not a reload
    ],
)
def test_reloads_beyond_plan(loads, models, beyond):
    of = {"loads": [{**journal()["last_load"], "started": started} for started in loads]}
    after, the_load = read(ollama__journal__loads=of["loads"]), load(load__loaded=models, load__used=models or [MODEL])
    assert verdicts.reloads_beyond_plan(declared(models=models), after, the_load["load"]) == beyond
    verdict, reasons = judge(the_load, after, declared(models=models))
    assert verdict == ("fail" if beyond else "pass")
    assert not beyond or f"{beyond} reloads" in reasons[0]


@pytest.mark.parametrize(
    "the_load, after, words",
    [
        pytest.param({"evidence": "none"}, {}, "no evidence", id="no evidence"),
        pytest.param({"evidence": None}, {}, "", id="null evidence"),
        pytest.param(
            {},
            {"process__environment": {**STABLE_ON_0_32, verdicts.UNIFIED_MEMORY: "1"}},
            "unified".upper(),
            id="unified memory",
        ),
        pytest.param(
            {},
            {"runners": [{"pid": 1, "command": RUNNER, "environment": {verdicts.UNIFIED_MEMORY: "0"}}]},
            "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
            id="unified memory of a runner",
        ),
        pytest.param(
            {},
            {"process": None, "unit__environment": {**STABLE_ON_0_32, verdicts.UNIFIED_MEMORY: "1"}},
            "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
            id="unified memory of a server that may not be read",
        ),
        pytest.param({"processes": []}, {"runners": [], "journal": NO_LOADS}, "no runner was seen", id="no runner"),
        pytest.param({}, {"journal": NO_LOADS, "api__loaded": []}, "how many layers", id="no layers"),
        pytest.param(
            {},
            {"journal": NO_LOADS, "api__loaded": [{"name": "a", "size": 9, "size_vram": 8}]},
            "how many layers",
            id="no layers, partly on the GPU",
        ),
    ],
)
def test_inconclusive(the_load, after, words):
    verdict, reasons = judge(load(**the_load), read(**{f"ollama__{path}": value for path, value in after.items()}))
    assert verdict == "inconclusive"
    assert words in reasons[0]


def test_fully_on_the_gpu_by_api_ps_will_do_for_layers():
    assert judge(after=read(ollama__journal=NO_LOADS))[0] == "pass"


def test_without_a_threshold_nothing_is_proven():
    declaration = declared(profile="baseline", allow_unsafe=True)
    host = seen(runner("-c 16384", "-ngl 999"))
    baseline = {"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_CONTEXT_LENGTH": "8192"}
    host["after"] = changed(
        host["after"],
        {
            "ollama.drop_ins.own": drop_in(baseline),
            "ollama.unit.environment": baseline,
            "ollama.process.environment": baseline,
            "ollama.journal.server_config": baseline,
            "backend.env_files": [env_file(values=declaration["profile"]["env"])],
        },
    )
    verdict, reasons = judge(host["the_load"], host["after"], declaration)
    assert (verdict, reasons) == ("inconclusive", ["the profile baseline has no threshold to prove"])


def test_the_baseline_that_crashes_fails_and_quotes_the_journal():
    after = read(ollama__journal=journal(failures=[OOM, GONE], loads=[], last_load=None, tokens_per_s=[]))
    verdict, reasons = judge(
        load(load__failed=3, breached=True, msg="3 of 3 requests failed"), after, declared(profile="baseline")
    )
    assert verdict == "fail"
    assert "Ollama's journal: cudaMalloc failed: out of memory" in reasons


@pytest.mark.parametrize("evidence", ["none", None])
@pytest.mark.parametrize("offloaded", [33, 1])
def test_evidence_none_is_never_a_pass(evidence, offloaded):
    host = seen(RUNNER, offloaded=offloaded)
    assert judge({**host["the_load"], "evidence": evidence}, host["after"])[0] != "pass"


# Figures ------------------------------------------------------------------------------------------------------------


def test_memory_split():
    assert verdicts.memory_split(load(), read()) == {
        "ollama_mib": 9054,
        "runners": 1,
        "all_mib": 9054,
        "loaded": True,
        "terms_mib": {"weights": 7605, "kv": 1024, "compute": 120, "runtime": 305},
        "others": [{"name": "backend", "peak_mib": 1836}, {"name": "Xorg", "peak_mib": 800}],
    }


def test_memory_of_another_ollama_is_memory_of_others():
    other = {"pid": 812, "command": "llama-server", "kind": "unit", "name": "b.service", "user": None, "alone": False}
    both = load(processes=[process(peak_mib=12000, pid=812), process()])
    for reads in ((read(ollama__others=[other]), None), (read(), read(ollama__others=[other]))):
        split = verdicts.memory_split(both, *reads)
        assert split["ollama_mib"] == 9054
        assert split["others"] == [{"name": "llama-server 812 of b.service", "peak_mib": 12000}]


def test_what_a_runner_held_that_never_came_up_is_no_models_size():
    failed = {**journal()["last_load"], "started": False}
    after = read(ollama__journal=journal(loads=[failed], last_load=failed))
    assert verdicts.memory_split(load(), after)["loaded"] is False


def test_before_has_the_speed_of_the_same_model_alone():
    other = {**journal()["last_load"], "command": ["x", "--model", "/blobs/b"], "tokens_per_s": [90.0]}
    before = read(ollama__journal__loads=[*journal()["loads"], other])
    assert verdicts.before_text(before, read()) == "31.2 tok/s"
    only_other = read(ollama__journal=journal(loads=[other], tokens_per_s=[[NOW, 90.0]]))
    assert verdicts.before_text(only_other, read()) == "not with this model"
    assert verdicts.before_text(read(ollama__journal=journal(log={"problem": "gone"}))) == "not read"


def test_memory_of_one_runner_on_two_gpus_is_one_sum():
    both = [process(peak_mib=6000), process(peak_mib=4000, gpu=1), process("Xorg", 800)]
    split = verdicts.memory_split(load(processes=both), read())
    assert (split["ollama_mib"], split["runners"], split["all_mib"]) == (10000, 1, 10000)


def test_memory_of_several_runners_is_told_together_too():
    both = [process(peak_mib=6000), process(peak_mib=900, pid=4711), process("Xorg", 800)]
    split = verdicts.memory_split(load(processes=both), read())
    assert (split["ollama_mib"], split["runners"], split["all_mib"]) == (6000, 2, 6900)


def test_terms_are_those_of_the_largest_runners_load():
    small = {**journal()["last_load"], "command": ["embed"], "buffers_mib": {"CUDA0 model": 250.0}}
    after = read(ollama__journal=journal(last_load=small))
    assert verdicts.memory_split(load(), after)["terms_mib"]["weights"] == 7605


def test_what_is_not_known_of_memory_is_left_out():
    assert verdicts.memory_split(load(processes=[]), read(ollama__journal=NO_LOADS)) == {
        "ollama_mib": 0,
        "runners": 0,
        "all_mib": 0,
        "loaded": True,
        "terms_mib": {},
        "others": [],
    }
    nameless = [process(peak_mib=None), {**process("Xorg", None), "name": None, "pid": 7}]
    assert verdicts.memory_split(load(processes=nameless), read())["others"] == [
        {"name": "process 7", "peak_mib": None}
    ]
    assert "runtime" not in verdicts.memory_split(load(processes=[process(peak_mib=100)]), read())["terms_mib"]


@pytest.mark.parametrize(
    "figures, speeds, wanted",
    [
        ({}, [[NOW, 31.0], [NOW + 41.4, 31.4]], 31.2),
        ({}, [[NOW, 31.0], [NOW + 50, 90.0]], 31.0),  # of a model that was asked for afterwards
        ({"tokens_per_s": 33.84}, [[NOW, 31.0]], 33.8),
        ({}, [], None),
    ],
)
def test_speed_is_that_of_the_load_itself(figures, speeds, wanted):
    assert verdicts.speed_of({**load()["load"], **figures}, journal(tokens_per_s=speeds)) == wanted


def test_before_has_not_the_speed_of_what_was_asked_for_after_the_load():
    further = {
        **journal()["last_load"],
        "at": NOW + 50,
        "command": ["x", "--model", "/blobs/b"],
        "tokens_per_s": [90.0],
    }
    both = read(ollama__journal__loads=[*journal()["loads"], further])
    assert verdicts.before_text(both, both, load()["load"]) == "31.2 tok/s"
    shows = {MODEL: {"blob": "/blobs/a"}, "b": {"blob": "/blobs/b"}}
    nothing_loaded_anew = read(ollama__journal=journal(loads=[]), ollama__api__show=shows)
    mixed = changed(both, {"ollama.journal.tokens_per_s": [[NOW, 31.0], [NOW, 90.0]]})
    assert verdicts.before_text(mixed, nothing_loaded_anew, load()["load"]) == "31.2 tok/s"


def test_the_models_whose_speed_a_load_tells():
    shows = {"e": EMBEDS, "b": {"blob": "/blobs/b"}}
    assert verdicts.speed_is_of({"model": "b", "used": []}, shows) == ["b"]
    assert verdicts.speed_is_of({"model": None, "used": ["E:latest", "b:latest"]}, shows) == ["b:latest"]
    assert verdicts.speed_is_of({"model": None, "used": None}, shows) == []


def test_settings_are_judged_by_what_came_up_for_the_backend_also_where_the_same_model_was_asked_for_besides():
    own = [*RUNNER[:-1], "256"]
    later = {**journal()["last_load"], "at": NOW + 50, "command": own, "offloaded": 29}
    after = read(ollama__runners=[], ollama__journal=journal(loads=[*journal()["loads"], later], last_load=later))
    both = load(processes=[process(command=own, pid=401), process()], load__others=[{"model": "alias"}])
    assert (drift.effects(both, after)["num_batch"], drift.effects(both, after)["offloaded"]) == (512, 33)
    failed = {**journal()["last_load"], "started": False}
    crashed = read(ollama__runners=[], ollama__journal=journal(loads=[failed, later], last_load=later))
    effect = drift.effects(both, crashed)
    assert (effect["runner"], effect["num_ctx"], effect["offloaded"]) == (False, None, None)


@pytest.mark.parametrize(
    "the_journal, wanted",
    [
        ({"failures": [OOM]}, "crashed"),
        ({"failures": [{**OOM, "severity": "recovered"}]}, "31.2 tok/s"),
        ({}, "31.2 tok/s"),
        ({"tokens_per_s": []}, "no requests seen"),
    ],
)
def test_how_it_was_before(the_journal, wanted):
    assert verdicts.before_text(read(ollama__journal=journal(**the_journal))) == wanted


def test_a_breach_says_who_held_the_memory():
    processes = [process(), process("stranger", 4000), process("idle", None), process("Xorg", 800)]
    processes.append(process("python3", 1836))  # the backend's pid
    over = load(breached=True, msg="15690 of at most 12288 MiB used", peak_used_mib=15690, processes=processes)
    verdict, reasons = judge(over)
    assert verdict == "fail"
    assert "who held it, each at its most, in MiB: Ollama 9054, stranger 4000, backend 1836, Xorg 800" in reasons
    assert not any("who held it" in reason for reason in judge(load(breached=True, msg="3 requests failed"))[1])


def test_an_upgrade_meanwhile_proves_nothing():
    before, after = read(), read(ollama__api__version="0.33.0")
    verdict, reasons = verdicts.judge_load(declared(), load(), after, before)
    assert verdict == "fail"
    assert reasons[0] == "Ollama was 0.32.15 when this run decided what to do, and is 0.33.0 now; apply again"
    assert verdicts.judge_load(declared(), load(), read(), before) == ("pass", [])


def test_a_model_on_gpus_alone_that_were_not_named_proves_nothing() -> None:
    """Its own GPU would stay under every threshold; a part of it on the named one is measured there."""
    there = gpu(1, processes=[holder(400, "llama-server", 9054)])
    elsewhere = read(nvml__ignored=[there])
    verdict, reasons = judge(load(processes=[process("Xorg", 800)]), elsewhere)
    assert verdict == "inconclusive"
    assert any("the model is on GPU 1" in reason and "gpu_memory_gpus does not name" in reason for reason in reasons)
    assert judge(load(), elsewhere)[0] == "pass", "a part of it is here"
    assert judge(load(processes=[process("Xorg", 800)]), read(nvml__ignored=[gpu(1)]))[0] == "pass"
