from __future__ import annotations

import itertools
import re

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report, host_record
from ansible_collections.selo.gpu_memory.tests.unit.builders import (
    STABLE_ON_0_32,
    declared,
    env_file,
    gpu,
    holder,
    journal,
    load,
    process,
    read,
)

UNDO = "ansible-playbook selo.gpu_memory.rollback --limit {host}"
CRASHED = read(ollama__journal=journal(failures=[{"severity": "fatal", "at": 1.0, "line": "out of memory"}]))
PREDICTED = {"models": ["a"], "total_mib": 9040, "band_mib": [8900, 9200], "warnings": ["40 caps nothing"]}
RESTARTED = {"services": {"ollama": {}, "backend": {}}, "downtime_s": 9.2}
DECISION = {
    "problems": [], "ollama_environment": STABLE_ON_0_32, "acts": True, "predicted": PREDICTED, "notes": ["a note"],
}  # fmt: skip


def record(host="gpu01", verdict="pass", reasons=(), **parts):
    whole = {
        "decision": DECISION,
        "before": CRASHED,
        "load": load(),
        "after": read(),
        "restarted": RESTARTED,
        "generation": "20260131T201500",
        "wave": 1,
    }
    return host_record.record(host, declared(), verdict, list(reasons), **{**whole, **parts})


def test_the_block_of_a_host():
    ((_unused, text),) = host_record.summary([record()], UNDO)
    assert (
        text
        == """\
gpu01  stable  PASS   peak 11690 of 12288 MiB, headroom 598 (sampled 20 Hz, worst gap 61 ms: a lower bound)
  load       3 chats at once, 41 s: 0 errors, 0 fatal lines in the journal, 0 reloads beyond plan
  speed      31.2 tok/s (before: crashed), p95 6.2 s, downtime 9 s
  memory     Ollama 9054 MiB (weights 7605, kv 1024, compute 120, runtime 305); others: backend 1836, Xorg 800
  memory     GPU 0 at 4.1 s: 16380 MiB = Ollama 9054 + backend 1836 + Xorg 800 + free 4690
  predicted  Ollama 9040 MiB (8900 to 9200), measured +14
  in force   CHAT_NUM_CTX=4096                      runner has -c 8192 (= 4096 x 2)
  in force   OLLAMA_NUM_PARALLEL=2                  runner has -np 2
  in force   OLLAMA_MAX_LOADED_MODELS=1             the server config says 1
  in force   OLLAMA_CONTEXT_LENGTH=4096             the server config says 4096
  in force   num_batch=512                          runner has -b 512
  partial    PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:128,expandable_segments:True not read back
  no effect  OLLAMA_GPU_LAYERS=40                   40 caps nothing, since the model has 33 layers; 33 of 33 layers \
are on the GPU
  no effect  TORCH_CUDA_MEMORY_FRACTION=0.75        no PyTorch reads it
  void       LLAMA_ARG_FIT_TARGET=4092              requests carry num_gpu=40, which switches Ollama's fitting off; \
OLLAMA_GPU_LAYERS in /mnt/local/Projects/SELODSP/selo-ai/backend/.env
  note       a note
  undo       ansible-playbook selo.gpu_memory.rollback --limit gpu01"""
    )  # noqa: E501


def test_several_models_are_compared_with_what_as_many_runners_held():
    def told(models, **memory):
        kept = record()
        kept["predicted"]["models"] = models
        kept["memory"].update(memory)
        ((_unused, text),) = host_record.summary([kept], UNDO)
        return next(line for line in text.splitlines() if "predicted" in line).partition("9200)")[2]

    assert told(["a"], runners=2, all_mib=9999) == ", measured +14"
    assert told(["a", "b"], runners=2, all_mib=9060) == ", measured +20"
    assert told(["a", "b"], runners=1, all_mib=9054) == ""
    assert told(["a", "b"], runners=3, all_mib=12000) == ""


def test_models_that_push_each_other_out_and_a_key_that_is_ours():
    backend = {"extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"}}
    declaration = declared(backend=backend, models=["a", "b"])
    options = ["-c", "8192", "-np", "2", "-ngl", "40"]
    one, other = ({**journal()["last_load"], "command": ["llama-server", "--model", name, *options]} for name in "ab")
    file = env_file(values={"CHAT_NUM_CTX": "4096", "OLLAMA_NUM_GPU": "40"})
    after = read(ollama__journal__loads=[one, other] * 3, backend__env_files=[file])
    the_load = load(processes=[process(command=one["command"])])
    said = host_record.record("gpu01", declaration, "pass", [], load=the_load, after=after)
    assert (said["journal"]["reloads"], said["journal"]["reloads_per_turn"]) == (4, 1.33)
    text = host_record.block(said)
    assert "0 fatal lines in the journal, 4 reloads of models (1.3 for each request), 0 reloads beyond plan" in text
    ours = "33 of 33 layers are on the GPU; set by this collection, not by the profile"
    assert f"in force   OLLAMA_NUM_GPU=40                      {ours}" in text


def test_the_block_of_a_refused_host_has_each_problem_whole():
    reasons = ["NVML: driver 470 is too old; install 510 or newer", "the unit\nollama.service is missing"]
    text = host_record.block(
        record(
            verdict="refused",
            reasons=reasons,
            decision={"problems": reasons},
            before=None,
            load=None,
            after=None,
            restarted=None,
        )
    )  # noqa: E501
    assert (
        text
        == """\
gpu01  stable  REFUSED
  reason     NVML: driver 470 is too old; install 510 or newer
  reason     the unit ollama.service is missing"""
    )


def test_the_block_of_a_host_that_was_put_back():
    reasons = ["GPU 0 used 13000 MiB", "generation g1 is back and its services answer"]
    text = host_record.block(record(verdict="rolled_back", reasons=reasons, load=load(peak_used_mib=13000)), "undo it")
    assert text.startswith("gpu01  stable  ROLLED BACK   peak 13000 of 12288 MiB, headroom -712 (sampled")
    assert "  reason     GPU 0 used 13000 MiB\n" in text
    assert "undo" not in text  # it is undone
    assert text.index("  settings   as they were under load, before the host went back\n") < text.index("  in force ")
    assert "  settings  " not in host_record.block(record())


def test_a_gpu_that_is_ignored_has_a_row():
    miner = holder(901, "miner", 500)
    ignored = [gpu(1, used_mib=500, total_mib=8188, processes=[miner]), {**gpu(2), "memory": None, "error": "lost"}]
    text = host_record.block(record(after=read(nvml__ignored=ignored)))
    assert "\n  ignored    GPU 1 now: 8188 MiB = miner 500 + free 7688\n  ignored    GPU 2: lost\n" in text


def test_a_proof_that_holds_says_from_when_it_is():
    kept = {**record(), "acted": False, "restarts": None, "proven_at": 1_769_890_500.0}
    text = host_record.block(kept, "undo it")
    assert "\n  proof      of 2026-01-31 20:15 UTC holds, so nothing was loaded; it showed:\n" in text
    assert "before: crashed" not in text
    assert "downtime" not in text
    assert "undo" not in text


BACK = {"services": {"ollama": {"state": "restarted"}}, "downtime_s": 4.1, "generation": "0001", "at": 1_050.0}
STOPPED = {"backend": {"stopped_at": 1_001.0}, "ollama": {"stopped_at": 1_002.0}}
STILL_DOWN = {"failed": True, "downtime_s": 30.0, "services": STOPPED}
NOT_STOPPED = {"failed": True, "downtime_s": 0.0, "services": {}}
LOST = {"failed": True, "lost_connection": True, "msg": "lost the connection"}


@pytest.mark.parametrize(
    ("restarted", "restored", "downtime"),
    [
        (RESTARTED, None, "9 s"),
        (RESTARTED, BACK, "13 s"),
        (None, BACK, "4 s"),
        (STILL_DOWN, BACK, "49 s"),  # until it was back, with what lay between the two
        (STILL_DOWN, None, None),
        (STILL_DOWN, {**BACK, "failed": True}, None),
        (RESTARTED, LOST, None),
        (LOST, BACK, None),
        (NOT_STOPPED, BACK, "4 s"),
        (NOT_STOPPED, {**BACK, "services": {}, "downtime_s": 0.0}, None),
    ],
)
def test_downtime_is_all_of_it(restarted, restored, downtime):
    text = host_record.block(record(verdict="rolled_back", restarted=restarted, restored=restored))
    found = re.findall(r"downtime (\d+ s)$", text, re.M)
    assert found == ([downtime] if downtime else [])


def test_downtime_has_that_of_the_profile_that_was_tried_before():
    first = record(verdict="rolled_back", restored=BACK)
    assert ", downtime 22 s\n" in host_record.block({**record(verdict="fell_back"), "first": first})


def test_without_a_threshold_there_is_no_headroom():
    result = host_record.record("a", declared(profile="baseline"), "fail", ["x"], load=load())
    assert host_record.block(result).startswith("a  baseline  FAIL   peak 11690 MiB, no threshold (sampled")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, " (sampled 20 Hz, worst gap 61 ms: a lower bound)"),
        ({"interval_ms": 10.0, "max_gap_ms": 500.4}, " (sampled 100 Hz, worst gap 500 ms: a lower bound)"),
        ({"interval_ms": None}, " (sampled: a lower bound)"),
        ({"max_gap_ms": None}, " (sampled: a lower bound)"),
        ({"evidence": "bounded"}, " (bounded by accounting)"),
        ({"evidence": "none"}, " (no evidence)"),
        ({"evidence": None}, ""),
    ],
)
def test_evidence(changes, words):
    assert host_record.one_line(record(load=load(**changes))).endswith(f"headroom 598{words}")


def test_a_line_for_a_host():
    assert host_record.one_line(record()) == (
        "gpu01  stable  PASS   peak 11690 of 12288 MiB, headroom 598 (sampled 20 Hz, worst gap 61 ms: a lower bound)"
    )
    lost = host_record.one_line(host_record.lost("gpu02"))
    assert lost.startswith("gpu02  -  INCONCLUSIVE  no result: the host was lost")
    assert "\n" not in host_record.one_line(record(verdict="fail", reasons=["a\nb", "c"]))


def test_up_to_four_hosts_a_block_each_and_above_a_line_each_with_the_counts():
    four = [record(f"gpu{number}") for number in range(4)]
    assert [text.count("\n") > 5 for _unused, text in host_record.summary(four, UNDO)] == [True] * 4
    five = [*four, record("gpu4", "rolled_back", ["too much"])]
    lines = host_record.summary(five, UNDO)
    assert [part is None for part, _unused in lines] == [False] * 5 + [True]
    assert all("\n" not in text for _unused, text in lines)
    assert lines[4][1].endswith("too much")
    assert lines[5][1] == "5 hosts: 4 pass, 1 rolled_back"


def test_no_hosts():
    assert host_record.summary([]) == []


def test_the_record_has_the_fields_that_others_rely_on():
    result = record()
    assert {name: result[name] for name in (
        "schema", "host", "profile", "verdict", "reason", "max_used_mib", "peak_used_mib", "evidence", "generation"
    )} == {
        "schema": 1,
        "host": "gpu01",
        "profile": "stable",
        "verdict": "pass",
        "reason": None,
        "max_used_mib": 12288,
        "peak_used_mib": 11690,
        "evidence": "sampled",
        "generation": "20260131T201500",
    }  # fmt: skip
    assert set(result["settings"][0]) == {"name", "wanted", "effect", "state", "read_by", "set_by", "seen", "source"}
    assert result["versions"] == {"ollama": "0.32.15", "driver": "550.163.01"}
    assert result["predicted"] == PREDICTED
    assert result["load"]["p95_s"] == 6.2
    (gpu,) = result["gpus"]
    assert (gpu["name"], gpu["timeline"], gpu["parts_at_s"]) == ("NVIDIA GeForce RTX 4060 Ti", [], 4.1)
    assert gpu["parts"] == [
        {"what": "ollama", "name": "Ollama", "mib": 9054},
        {"what": "backend", "name": "backend", "mib": 1836},
        {"what": "others", "name": "Xorg", "mib": 800},
        {"what": "free", "name": "free", "mib": 4690},
    ]
    assert "at_most" not in gpu


@pytest.mark.parametrize("reasons, text", [([], None), (["a"], "a"), (["a", "b"], "a; b")])
def test_reason(reasons, text):
    assert record(reasons=reasons)["reason"] == text


def test_many_failures_are_not_all_kept():
    many = [{"severity": "warning", "at": 1.0, "line": "x"}] * 80
    assert len(record(after=read(ollama__journal=journal(failures=many)))["journal"]["failures"]) == 50


def test_what_was_not_measured_is_null_and_does_not_appear():
    result = host_record.record("a", declared(), "inconclusive", ["x"], before=read())
    for name in (
        "peak_used_mib",
        "evidence",
        "load",
        "sampling",
        "speed",
        "memory",
        "journal",
        "predicted",
        "generation",
    ):
        assert result[name] is None
    (gpu,) = result["gpus"]  # as they were read
    assert gpu["processes"] == read()["nvml"]["gpus"][0]["processes"] and gpu["parts_at_s"] is None
    assert host_record.block(result) == (
        "a  stable  INCONCLUSIVE\n  memory     GPU 0 now: 16380 MiB = Xorg 800 + free 15580\n  reason     x"
    )


@pytest.mark.parametrize("at_most", [None, {}])
def test_a_gpu_of_which_no_listing_is_known_has_no_parts(at_most):
    the_load = load()
    the_load["gpus"][0]["at_most"] = at_most
    result = record(load=the_load)
    assert result["gpus"][0]["parts"] is None
    assert "GPU 0 at" not in host_record.block(result)


@pytest.mark.parametrize("gone", ["load", "speed", "memory", "predicted", "restarts", "sampling", "journal", "before"])
def test_a_part_that_is_null_takes_only_its_own_words_away(gone):
    whole = record()
    text = host_record.block({**whole, gone: None}, "undo it")
    assert "None" not in text
    words = {
        "load": "chats", "speed": "tok/s", "memory": "weights", "predicted": "predicted", "restarts": "downtime",
        "sampling": "Hz", "journal": "fatal lines", "before": "before:",
    }[gone]  # fmt: skip
    assert words in host_record.block(whole)
    assert words not in text


@pytest.mark.no_cover
def test_every_combination_of_missing_parts_has_a_text():
    partial_load = {"failed": True, "msg": "lost the connection", "lost_connection": True}
    for decision, before, the_load, after, restarted, verdict in itertools.product(
        [None, {}, {"problems": ["x"]}, DECISION],
        [None, read()],
        [None, partial_load, {**load(), "load": None}, load(processes=[]), load()],
        [
            None,
            read(ollama__process=None, ollama__runners=[], ollama__journal=journal(loads=[], last_load=None)),
            read(),
        ],
        [None, {"failed": True, "msg": "x", "services": {"ollama": {}}, "downtime_s": None}, RESTARTED],
        ["pass", "fail"],
    ):
        result = record(
            verdict=verdict, decision=decision, before=before, load=the_load, after=after, restarted=restarted
        )
        for text in (host_record.block(result, "undo it"), host_record.one_line(result)):
            assert text.startswith("gpu01  stable  ")
            assert "None" not in text


def test_a_host_without_a_profile():
    result = host_record.record("a", {"profile": None}, "refused", ["gpu_memory_profile = 'x' is not known"])
    assert host_record.block(result) == "a  -  REFUSED\n  reason     gpu_memory_profile = 'x' is not known"


def test_memory_of_others_that_is_not_known_is_left_out():
    result = record(load=load(processes=[process(), process("Xorg", None)]))
    assert "others" not in host_record.block(result)


def test_progress():
    progress = {
        "t_s": 12.4, "used_mib": 9000, "peak_used_mib": 11690, "max_used_mib": 12288, "requests_done": 1, "requests": 3,
    }  # fmt: skip
    assert host_record.progress_line("gpu01", 2, progress) == (
        "gpu01  wave 2  load 1/3  12 s  memory now 9000, peak 11690 of 12288 MiB"
    )
    assert host_record.progress_line("a", 1, {**progress, "max_used_mib": None}).endswith("peak 11690 MiB")
    assert host_record.progress_line("a", 1, {"used_mib": None}) == "a  wave 1  load 0/0  0 s  memory not read"


def test_notes_of_a_host_that_is_as_it_was_are_counted():
    kept = {**record(), "acted": False, "restarts": None, "proven_at": 1_769_890_500.0, "notes": ["one", "two"]}
    lines = host_record.block(kept).splitlines()
    assert [line for line in lines if line.startswith("  note")] == [
        "  note       2 notes as before, in full in gpu01.json and in the plan"
    ]


def test_what_a_client_has_running_is_never_as_before():
    notes = ["one", "what runs now is a client's: num_ctx 8192", "two"]
    kept = {**record(), "acted": False, "restarts": None, "proven_at": 1_769_890_500.0, "notes": notes}
    assert [line for line in host_record.block(kept).splitlines() if line.startswith("  note")] == [
        "  note       what runs now is a client's: num_ctx 8192",
        "  note       2 notes as before, in full in gpu01.json and in the plan",
    ]
    assert host_record.one_line(kept).endswith("  what runs now is a client's")
    assert host_record.is_overridden(kept) and not host_record.is_overridden({**kept, "notes": ["one"]})


def test_reloads_are_told_also_where_there_were_none_of_several_models():
    one, other = ({**journal()["last_load"], "command": ["llama-server", "--model", name]} for name in "ab")
    said = host_record.record(
        "gpu01", declared(), "pass", [], load=load(), after=read(ollama__journal__loads=[one, other])
    )
    assert "0 reloads of models (0.0 for each request)" in host_record.block(said)


def test_names_from_a_host_do_not_steer_the_terminal():
    hostile = record(
        load=load(processes=[process(), process("a\x1b[2Jb\u202e\nc", 7)]), verdict="fail", reasons=["x\x07\x1b]0;y"]
    )
    for text in (host_record.block(hostile), host_record.one_line(hostile)):
        assert all(line.isprintable() for line in text.split("\n"))
    assert "others: a?[2Jb? c 7" in host_record.block(hostile)


def test_a_load_says_what_was_special_about_it():
    whole = record()
    whole["journal"] = {**whole["journal"], "longest_prompt": 3593, "truncated": 2}
    whole["load"] = {**whole["load"], "not_forgotten": ["chat 1: 404", "chat 2: 404"]}
    line = next(text for text in host_record.block(whole).splitlines() if text.startswith("  load"))
    assert "longest prompt 3593 of 4096 tokens" in line
    assert "2 prompts shortened" in line
    assert "2 chats stay with the backend: chat 1: 404" in line


def test_each_model_that_was_asked_for_stands_in_the_load():
    whole = record()
    figures = {"ok": 1, "requests": 1, "longest_prompt_tokens": 1799}
    whole["load"] = {**whole["load"], "others": [{"model": "e", **figures}, {"model": "f", "ok": 0, "requests": 3}]}
    assert "; then, one after another: e (1 of 1 of up to 1799 tokens), f (0 of 3)" in host_record.block(whole)
    whole["effects"] = {**whole["effects"], "embedder": True}
    whole["load"] = {**whole["load"], **figures, "others": []}
    assert "  load       embeddings of up to 1799 tokens, 41 s: 0 errors" in host_record.block(whole)


@pytest.mark.parametrize(("used", "told"), [(["a", "b"], True), (["a"], False), ([], False), (None, False)])
def test_of_several_models_that_were_used_it_is_said_that_nobody_knows_by_whom(used, told):
    whole = record()
    whole["load"] = {**whole["load"], "used": used}
    text = "used meanwhile, by it or by other clients, which Ollama does not tell: a, b"
    assert (text in host_record.block(whole)) is told


def test_the_speed_of_each_model_is_its_own():
    whole = {**record(), "speed": 33.8, "speed_is_of": ["a:8b"]}
    others = [{"model": "b", "ok": 3, "requests": 3, "tokens_per_s": 59.41}, {"model": "e", "ok": 1, "requests": 1}]
    whole["load"] = {**whole["load"], "others": others}
    assert (
        "  speed      33.8 tok/s (a:8b; before: crashed), p95 6.2 s, downtime 9 s; b 59.4 tok/s\n"
        in host_record.block(whole)
    )
    whole["speed_is_of"], whole["load"]["others"] = ["a:8b", "c"], []
    assert "  speed      33.8 tok/s (a:8b and c; before: crashed), p95" in host_record.block(whole)
    whole["speed"], whole["speed_is_of"] = None, []
    assert "  speed      p95 6.2 s, downtime 9 s\n" in host_record.block(whole)


def test_a_log_that_was_not_read_has_no_number_anywhere():
    log = {"where": "/dev/null", "problem": "it goes to /dev/null", "dropped": 0, "cut": False, "lines": 0}
    unread = record(after=read(ollama__journal=journal(log=log, loads=[], last_load=None)))
    text = host_record.block(unread)
    assert "0 errors, Ollama's log not read" in text and "fatal lines" not in text and "beyond plan" not in text
    assert "it goes to /dev/null" in unread["journal"]["not_read"]
    assert any("it goes to /dev/null" in note for note in unread["notes"])


def test_a_file_is_named():
    log = {"where": "/var/log/ollama.log", "problem": None, "dropped": 0, "cut": False, "lines": 9}
    text = host_record.block(record(after=read(ollama__journal=journal(log=log))))
    assert "0 fatal lines in /var/log/ollama.log, 0 reloads beyond plan" in text


def test_what_a_runner_held_that_never_came_up_is_not_measured_against_the_plan():
    failed = {**journal()["last_load"], "started": False}
    log = journal(loads=[failed], last_load=failed)
    assert "measured" not in host_record.block(record("gpu01", "fail", after=read(ollama__journal=log)))


def test_a_gpu_that_is_ignored_is_in_the_record_beside_those_that_count():
    ignored = [gpu(1, name="T400", total_mib=3072)]
    found = record(load=None, decision=None, after=read(nvml__ignored=ignored))
    assert [each["uuid"] for each in found["ignored"]] == ["GPU-1"] != [each["uuid"] for each in found["gpus"]]
    assert sum(part["mib"] for part in found["ignored"][0]["parts"]) == 3072
    assert ("GPU 1", "T400, 3072 MiB, GPU-1, ignored") in fleet_report.row(found)["facts"]


def test_a_proof_that_holds_is_recorded_under_this_inventorys_name():
    proof = {"at": 1769890506.0, "record": {**record("old"), "acted": True}}
    again = host_record.of_proof("gpu01", proof, ["a note"])
    assert (again["host"], again["acted"], again["restarts"]) == ("gpu01", False, None)
    assert (again["proven_at"], again["notes"], again["verdict"]) == (proof["at"], ["a note"], "pass")
    assert proof["record"]["host"] == "old"


def test_of_several_gpus_each_is_predicted_and_the_fullest_named() -> None:
    two = {**record()}
    two["gpus"] = [{**two["gpus"][0], "index": 0, "peak_used_mib": 800}, {**two["gpus"][0], "index": 1}]
    two["predicted"] = {
        **two["predicted"],
        "gpus": [
            {"index": 0, "total_mib": 0, "band_mib": [0, 0], "others_mib": 800, "others": ["Xorg 800"]},
            {"index": 1, "total_mib": 9054, "band_mib": [8868, 9222], "others_mib": 0, "others": []},
        ],
    }
    ((_unused, text),) = host_record.summary([two], UNDO)
    assert "headroom 598 on GPU 1 (sampled" in text
    assert "; GPU 0 0 (0 to 0) and Xorg 800; GPU 1 9054 (8868 to 9222)" in text
