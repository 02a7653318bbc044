from __future__ import annotations

import math
import re

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import profiles
from ansible_collections.selo.gpu_memory.tests.unit.builders import built_in_profiles
from hypothesis import given
from hypothesis import strategies as st

KEYS = {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_GPU_LAYERS"}
ALLOC_CONF = "max_split_size_mb:128,expandable_segments:True"


def resolve(name="stable", own=None, overrides=None, keys=None):
    return profiles.resolve(name, built_in_profiles(), own, overrides, KEYS if keys is None else keys)


def good(*args, **kwargs) -> profiles.Profile:
    profile, problems = resolve(*args, **kwargs)
    assert problems == []
    assert profile is not None
    return profile


# The guide's table: env byte for byte, and what it means.
GUIDE = {
    "baseline": (
        {"OLLAMA_GPU_LAYERS": "999", "CHAT_NUM_CTX": "8192", "OLLAMA_NUM_PARALLEL": "2"},
        {"num_ctx": 8192, "num_parallel": 2, "num_batch": 512, "gpu_layers": 999},
    ),
    "stable": (
        {
            "OLLAMA_GPU_LAYERS": "40",
            "CHAT_NUM_CTX": "4096",
            "OLLAMA_NUM_PARALLEL": "2",
            "TORCH_CUDA_MEMORY_FRACTION": "0.75",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "PYTORCH_CUDA_ALLOC_CONF": ALLOC_CONF,
        },
        {
            "num_ctx": 4096,
            "num_parallel": 2,
            "num_batch": 512,
            "gpu_layers": 40,
            "max_loaded_models": 1,
            "max_used_mib": 12288,
        },
    ),
    "conservative": (
        {
            "OLLAMA_GPU_LAYERS": "35",
            "CHAT_NUM_CTX": "2048",
            "OLLAMA_NUM_PARALLEL": "1",
            "TORCH_CUDA_MEMORY_FRACTION": "0.70",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "PYTORCH_CUDA_ALLOC_CONF": ALLOC_CONF,
        },
        {
            "num_ctx": 2048,
            "num_parallel": 1,
            "num_batch": 512,
            "gpu_layers": 35,
            "max_loaded_models": 1,
            "max_used_mib": 10240,
        },
    ),
}


@pytest.mark.parametrize("name", GUIDE)
def test_built_in_profiles_are_the_guides(name):
    profile = good(name)
    assert (profile.env, profile.intent) == GUIDE[name]
    assert list(profile.env) == list(GUIDE[name][0])  # the order of the file
    assert (profile.label, profile.changed, profile.models) == (name, [], [])


def test_there_are_no_other_built_in_profiles():
    assert set(built_in_profiles()) == set(GUIDE)


def test_an_own_profile_extends_a_built_in_one():
    own = {"night": {"extends": "stable", "env": {"EXTRA": "1"}, "intent": {"max_used_mib": "11GiB"}}}
    profile = good("night", own)
    assert profile.env == {**GUIDE["stable"][0], "EXTRA": "1"}
    assert profile.intent == {**GUIDE["stable"][1], "max_used_mib": 11264}
    assert profile.label == "night"


def test_a_chain_of_profiles():
    own = {
        "a": {"extends": "stable", "intent": {"num_ctx": 1024}, "models": ["x"]},
        "b": {"extends": "a", "intent": {"num_parallel": 1}},
        "c": {"extends": "b", "intent": {"num_ctx": 512}, "models": []},
    }
    assert good("b", own).models == ["x"]
    profile = good("c", own)
    assert (profile.intent["num_ctx"], profile.intent["num_parallel"], profile.models) == (512, 1, [])
    assert (profile.env["CHAT_NUM_CTX"], profile.env["OLLAMA_NUM_PARALLEL"]) == ("512", "1")


def test_a_whole_profile_takes_nothing_from_any_other():
    own = {"mine": {"env": {"A": "b"}, "intent": {"num_ctx": 1024, "num_parallel": 1}}}
    profile = good("mine", own)
    assert (profile.env, profile.intent) == ({"A": "b"}, {"num_ctx": 1024, "num_parallel": 1})
    assert profile.max_used_mib is None


def test_a_redefined_built_in_is_starred_with_its_changed_keys():
    own = {"stable": {"extends": "stable", "intent": {"num_ctx": 5120}, "env": {"EXTRA": "1"}}}
    profile = good("stable", own)
    assert profile.label == "stable*"
    assert profile.changed == ["env.CHAT_NUM_CTX", "env.EXTRA", "intent.num_ctx"]
    assert profile.intent["num_parallel"] == 2  # it extends the built-in one, not itself


def test_a_redefined_built_in_that_says_the_same_is_not_starred():
    assert good("stable", {"stable": {"extends": "stable"}}).label == "stable"
    assert good("stable", {"stable": built_in_profiles()["stable"]}).label == "stable"


def test_a_redefined_built_in_that_extends_another_one():
    profile = good("stable", {"stable": {"extends": "conservative"}})
    assert profile.env == GUIDE["conservative"][0]
    assert profile.label == "stable*"


def test_models_are_a_change_too():
    assert good("stable", {"stable": {"extends": "stable", "models": ["a:7b"]}}).changed == ["models"]


def test_what_is_missing_is_a_change_too():
    own = {"stable": {"env": {}, "intent": {"num_ctx": 4096, "num_parallel": 2}}}
    changed = good("stable", own).changed
    assert "env.CHAT_NUM_CTX" in changed
    assert "intent.max_used_mib" in changed


def test_overrides_star_a_profile():
    assert good(overrides={"intent": {"gpu_layers": 30}}).label == "stable*"
    assert good("mine", {"mine": {"extends": "stable"}}, {"env": {"A": "1"}}).label == "mine*"
    assert good(overrides={}).label == "stable"


def test_overrides_win_over_the_profile():
    profile = good("a", {"a": {"extends": "stable", "intent": {"num_ctx": 1024}}}, {"intent": {"num_ctx": 2048}})
    assert (profile.intent["num_ctx"], profile.env["CHAT_NUM_CTX"]) == (2048, "2048")


@pytest.mark.parametrize(
    "intent, variable",
    [
        ({"num_ctx": 1024}, {"CHAT_NUM_CTX": "1024"}),
        ({"gpu_layers": 30}, {"OLLAMA_GPU_LAYERS": "30"}),
        ({"num_parallel": 1}, {"OLLAMA_NUM_PARALLEL": "1"}),
        ({"max_loaded_models": 2}, {"OLLAMA_MAX_LOADED_MODELS": "2"}),
        ({"num_batch": 256}, {}),
        ({"max_used_mib": 9000}, {}),
    ],
)
def test_an_intent_changes_the_variable_that_carries_it(intent, variable):
    profile = good(overrides={"intent": intent})
    assert profile.env == {**GUIDE["stable"][0], **variable}
    assert profile.intent == {**GUIDE["stable"][1], **intent}


def test_an_intent_does_not_bring_in_a_variable_that_the_profile_does_not_write():
    assert "OLLAMA_MAX_LOADED_MODELS" not in good("baseline", overrides={"intent": {"max_loaded_models": 1}}).env


def test_the_keys_of_the_backend_decide_which_variable_carries_an_intent():
    profile = good(overrides={"intent": {"num_ctx": 1024}}, keys={"num_ctx": "OTHER"})
    assert profile.env["CHAT_NUM_CTX"] == "4096"


def test_naming_both_in_agreement_is_fine():
    profile = good(overrides={"intent": {"num_ctx": 1024}, "env": {"CHAT_NUM_CTX": 1024}})
    assert profile.env["CHAT_NUM_CTX"] == "1024"


@pytest.mark.parametrize(
    "intent, wanted",
    [
        ({"num_ctx": "1024"}, 1024),  # -e makes text of everything
        ({"num_ctx": " 1024 "}, 1024),
        ({"num_ctx": "+1024"}, 1024),
        ({"num_ctx": 1024.0}, 1024),
        ({"max_used_mib": "12288"}, 12288),
        ({"max_used_mib": "12GiB"}, 12288),
        ({"max_used_mib": "12 gib"}, 12288),
        ({"max_used_mib": "12.5GiB"}, 12800),
        ({"max_used_mib": "12288MiB"}, 12288),
    ],
)
def test_numbers_are_canonical(intent, wanted):
    ((name, value),) = intent.items()
    assert good(overrides={"intent": {name: value}}).intent[name] == wanted


@pytest.mark.parametrize(
    "value, text", [(8, "8"), ("8", "8"), (0.75, "0.75"), ("0.70", "0.70"), ("", ""), ("no", "no")]
)
def test_env_values_are_text(value, text):
    assert good(overrides={"env": {"X": value}}).env["X"] == text


def test_a_profile_may_be_named_by_a_number():
    assert good("16", {16: {"extends": "stable"}}).name == "16"


def test_models_may_stand_inside_intent():
    assert good(overrides={"intent": {"models": [" a:7b "]}}).models == ["a:7b"]


def test_nothing_is_changed_in_what_was_declared():
    own = {"stable": {"extends": "stable", "intent": {"num_ctx": "1024"}}}
    overrides = {"intent": {"models": ["a"]}}
    before = repr((own, overrides))
    resolve("stable", own, overrides)
    assert repr((own, overrides)) == before


P = "gpu_memory_profiles.p"
O = "gpu_memory_overrides"  # noqa: E741
WHOLE = {"num_ctx": 1024, "num_parallel": 1}
NUMBER = "must be a whole number, from"
# What was declared as (profile, profiles, overrides), and what the one message must say, in order.
INVALID = {
    "no such profile": ("fast", None, None, ["gpu_memory_profile", "'fast'", "baseline, conservative, stable"]),
    "an own one is listed": ("fast", {"p": {}}, None, ["gpu_memory_profile", "'fast'", "p, stable"]),
    "name is a number": (8, None, None, ["gpu_memory_profile", "8", "allowed: baseline"]),
    "name is empty": ("", None, None, ["gpu_memory_profile", "''", "allowed: baseline"]),
    "name is null": (None, None, None, ["gpu_memory_profile", "None", "allowed: baseline"]),
    "name is a list": (["stable"], None, None, ["gpu_memory_profile", "['stable']", "allowed: baseline"]),
    "name is a path": ("../x", {"../x": {}}, None, ["gpu_memory_profile", "'../x'", "allowed:"]),
    "name ends in a new line": ("stable\n", None, None, ["gpu_memory_profile", r"'stable\n'", "allowed:"]),
    "case matters": ("Stable", None, None, ["gpu_memory_profile", "'Stable'", "stable"]),
    "profiles is a list": ("stable", [], None, ["gpu_memory_profiles", "[]", "mapping", "list"]),
    "profiles is text": ("stable", "x", None, ["gpu_memory_profiles", "'x'", "mapping", "str"]),
    "profile is null": ("p", {"p": None}, None, [P, "mapping", "NoneType"]),
    "profile is text": ("p", {"p": "stable"}, None, [P, "mapping", "str"]),
    "profile is a list": ("p", {"p": []}, None, [P, "mapping", "list"]),
    "unknown part": ("p", {"p": {"extends": "stable", "environment": {}}}, None, [f"{P}.environment", "env, intent"]),
    "unknown part by number": ("p", {"p": {"extends": "stable", 1: {}}}, None, [f"{P}.1 ", "env, intent"]),
    "extends nothing known": ("p", {"p": {"extends": "x"}}, None, [f"{P}.extends", "'x'", "not known", "stable"]),
    "extends itself": ("p", {"p": {"extends": "p"}}, None, [f"{P}.extends", "'p'", "itself", "stable"]),
    "extends in a circle": (
        "p", {"p": {"extends": "q"}, "q": {"extends": "p"}}, None, ["gpu_memory_profiles.q.extends", "'p'", "itself"]
    ),
    "extends a list": ("p", {"p": {"extends": ["stable"]}}, None, [f"{P}.extends", "stable", "not known"]),
    "extends false": ("p", {"p": {"extends": False}}, None, [f"{P}.extends", "False", "not known"]),
    "extends a broken one": ("p", {"p": {"extends": "q"}, "q": 1}, None, ["gpu_memory_profiles.q", "mapping", "int"]),
    "not whole": ("p", {"p": {}}, None, [f"{P}.intent", "num_ctx, num_parallel", "extends: stable"]),
    "no num_parallel": ("p", {"p": {"intent": {"num_ctx": 1024}}}, None, [f"{P}.intent", "num_parallel", "whole"]),
    "no num_ctx": ("p", {"p": {"intent": {"num_parallel": 1}}}, None, [f"{P}.intent", "num_ctx", "whole"]),
    "env is a list": ("p", {"p": {"intent": WHOLE, "env": []}}, None, [f"{P}.env", "[]", "mapping", "list"]),
    "env is text": ("p", {"p": {"intent": WHOLE, "env": "A=b"}}, None, [f"{P}.env", "'A=b'", "mapping", "str"]),
    "env is false": ("p", {"p": {"intent": WHOLE, "env": False}}, None, [f"{P}.env", "False", "mapping", "bool"]),
    "intent is a list": ("p", {"p": {"intent": [WHOLE]}}, None, [f"{P}.intent", "num_ctx", "mapping", "list"]),
    "intent is text": ("p", {"p": {"intent": ""}}, None, [f"{P}.intent", "''", "mapping", "str"]),
    "overrides is text": ("stable", None, "{}", [O, "mapping", "str"]),
    "overrides is empty text": ("stable", None, "", [O, "mapping", "str"]),
    "overrides is a list": ("stable", None, [], [O, "mapping", "list"]),
    "overrides is false": ("stable", None, False, [O, "mapping", "bool"]),
    "overrides extend": ("stable", None, {"extends": "baseline"}, [f"{O}.extends", "'baseline'", "env, intent"]),
    "unknown override": ("stable", None, {"num_ctx": 1024}, [f"{O}.num_ctx", "not known", "env, intent"]),
    **{
        f"env key {key!r}": ("stable", None, {"env": {key: "x"}}, [f"{O}.env", repr(key), "letters, digits, _"])
        for key in ("1A", "A B", "A-B", "", "A=", "A\n", "Ä", 1, True, None)
    },
    **{
        f"env value {value!r}": ("stable", None, {"env": {"A": value}}, [f"{O}.env.A", repr(value), "one line of text"])
        for value in (True, False, None, [], {}, "a\nb", "a\0", "a\x7f", "\ud800", "a\u2028b", b"a", ("a",))
    },
    "unknown intent": ("stable", None, {"intent": {"ctx": 1}}, [f"{O}.intent.ctx", "num_ctx, num_parallel"]),
    "unknown intent by number": ("stable", None, {"intent": {1: 1}}, [f"{O}.intent.1", "num_ctx, num_parallel"]),
    **{
        f"{name} = {value!r}": ("stable", None, {"intent": {name: value}}, [f"{O}.intent.{name}", repr(value), allowed])
        for name, value, allowed in [
            ("num_ctx", 0, f"{NUMBER} 256 to 4194304"),
            ("num_ctx", 255, f"{NUMBER} 256"),
            ("num_ctx", 4194305, "to 4194304"),
            ("num_ctx", -4096, f"{NUMBER} 256"),
            ("num_ctx", "4k", NUMBER),
            ("num_ctx", "4096 tokens", NUMBER),
            ("num_ctx", "0x1000", NUMBER),
            ("num_ctx", "", NUMBER),
            ("num_ctx", 4096.5, NUMBER),
            ("num_ctx", float("inf"), NUMBER),
            ("num_ctx", float("nan"), NUMBER),
            ("num_ctx", True, NUMBER),
            ("num_ctx", None, NUMBER),
            ("num_ctx", [4096], NUMBER),
            ("num_ctx", {}, NUMBER),
            ("num_ctx", "9" * 400, NUMBER),
            ("num_parallel", 0, f"{NUMBER} 1 to 128"),
            ("num_parallel", 129, "to 128"),
            ("num_parallel", True, NUMBER),
            ("num_parallel", "no", f"{NUMBER} 1 to 128"),
            ("num_parallel", "two", f"{NUMBER} 1 to 128"),
            ("num_batch", 31, f"{NUMBER} 32 to 16384"),
            ("num_batch", 16385, "to 16384"),
            ("gpu_layers", -1, f"{NUMBER} 0 to 9999"),
            ("gpu_layers", 10000, "to 9999"),
            ("gpu_layers", "all", f"{NUMBER} 0 to 9999"),
            ("max_loaded_models", 0, f"{NUMBER} 1 to 64"),
            ("max_loaded_models", "false", f"{NUMBER} 1 to 64"),
            ("max_used_mib", "12GB", "must be MiB, as 12288 or 12GiB, from 256 to 1048576"),
            ("max_used_mib", "12 G", "MiB"),
            ("max_used_mib", "75%", "MiB"),
            ("max_used_mib", 0.75, "MiB"),
            ("max_used_mib", 12, "from 256"),  # GiB were meant
            ("max_used_mib", "0.0001GiB", "MiB"),
            ("max_used_mib", "9" * 400 + "GiB", "MiB"),
            ("max_used_mib", 12884901888, "to 1048576"),  # bytes were meant
            ("max_used_mib", True, "MiB"),
        ]
    },
    **{
        f"models = {value!r}": ("stable", None, {"models": value}, [f"{O}.models", repr(value), "list of model names"])
        for value in ("", "a,,b", [""], [" "], [1], [None], {"a": 1}, False, 0)
    },
    **{
        f"contradiction {variable}": (
            "stable", None, {"env": {variable: value}}, [f"env.{variable} = {value}", f"intent.{intent}", "equal"]
        )
        for variable, value, intent in [
            ("CHAT_NUM_CTX", "2048", "num_ctx = 4096"),
            ("OLLAMA_NUM_PARALLEL", "4", "num_parallel = 2"),
            ("OLLAMA_GPU_LAYERS", "all", "gpu_layers = 40"),
            ("OLLAMA_MAX_LOADED_MODELS", "", "max_loaded_models = 1"),
        ]
    },
    "a variable whose intent is not said": (
        "p", {"p": {"intent": WHOLE, "env": {"OLLAMA_GPU_LAYERS": 20}}}, None, [P, "LAYERS = 20", "lacks", "gpu_layers"]
    ),
    "contradiction inside one layer": (
        "stable", None, {"env": {"CHAT_NUM_CTX": 1}, "intent": {"num_ctx": 1024}},
        [f"{O}.env.CHAT_NUM_CTX = 1 ", f"{O}.intent.num_ctx = 1024", "equal"],
    ),
    "contradiction between two layers": (
        "p", {"p": {"extends": "stable", "env": {"CHAT_NUM_CTX": 1}}}, None,
        [f"{P}.env.CHAT_NUM_CTX = 1 contradicts gpu_memory_profiles.stable.intent.num_ctx = 4096"],
    ),
    "Ollama's own name for the context": (
        "stable", None, {"env": {"OLLAMA_CONTEXT_LENGTH": 8192}}, [f"{O}.env.OLLAMA_CONTEXT_LENGTH = 8192", "= 4096"]
    ),
    "a mistake in a profile that another extends": (
        "p", {"p": {"extends": "q"}, "q": {"extends": "stable", "intent": {"num_ctx": 1}}}, None,
        ["gpu_memory_profiles.q.intent.num_ctx = 1 must be", "(p extends q)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_bad_input_gets_one_message_that_names_key_value_and_what_is_allowed(case):
    name, own, overrides, said = INVALID[case]
    profile, problems = resolve(name, own, overrides)
    assert profile is None
    assert len(problems) == 1, problems
    assert re.search(".*".join(map(re.escape, said)), problems[0], re.DOTALL), problems[0]


def test_all_problems_come_at_once():
    own = {"p": {"extends": "stable", "env": {"1": "x", "A": True}, "intent": {"num_ctx": 1}, "x": 1}}
    _unused, problems = resolve("p", own, {"intent": {"num_batch": "x"}, "models": 3})
    assert len(problems) == 6


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["stable", "p", "12GiB", "8", "no", "4096"])
)
NAMES = st.sampled_from(
    [
        "stable",
        "baseline",
        "p",
        "q",
        "env",
        "intent",
        "models",
        "extends",
        *profiles.INTENTS,
        "CHAT_NUM_CTX",
        "OLLAMA_NUM_PARALLEL",
        "A",
    ]  # fmt: skip
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            NAMES | SCALARS.filter(lambda x: not (isinstance(x, float) and math.isnan(x))), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@given(JUNK, JUNK, JUNK)
def test_junk_never_raises(name, own, overrides):
    check(*resolve(name, own, overrides))


@given(
    st.sampled_from(["stable", "p", "q"]),
    st.dictionaries(st.sampled_from(["stable", "p", "q"]), st.dictionaries(NAMES, JUNK, max_size=4)),
    st.dictionaries(NAMES, JUNK, max_size=4),
)
def test_junk_in_the_right_places_never_raises(name, own, overrides):
    check(*resolve(name, own, overrides))


def check(profile, problems):
    """Either a whole profile or the reasons why there is none."""
    if profile is None:
        assert problems
        assert all(isinstance(problem, str) and problem for problem in problems)
        return
    assert problems == []
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in profile.env.items())
    for name, value in profile.intent.items():
        assert profiles.INTENTS[name].least <= value <= profiles.INTENTS[name].most
    assert {"num_ctx", "num_parallel"} <= set(profile.intent)
