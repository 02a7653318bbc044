"""Bad declarations through a whole apply: each host refused with all its problems, and nothing on it touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.inputs.real_lab import BACKEND, Host, aliases, playbook, records

# The unit tests have the long tables; here is one of each kind, as an inventory gives it. What each must say.
INVALID: dict[str, tuple[dict[str, Any], list[str]]] = {
    "profile": (
        {"gpu_memory_profile": "fast"},
        ["gpu_memory_profile = 'fast'", "allowed: baseline, conservative, stable"],
    ),
    "range": ({"gpu_memory_overrides": {"intent": {"num_ctx": 1}}}, ["gpu_memory_overrides.intent.num_ctx = 1", "256"]),
    "unit-of-size": ({"gpu_memory_overrides": {"intent": {"max_used_mib": "12 GB"}}}, ["'12 GB'", "12288 or 12GiB"]),
    "boolean-in-env": ({"gpu_memory_overrides": {"env": {"A": True}}}, ["gpu_memory_overrides.env.A = True", "quote"]),
    "two-lines": ({"gpu_memory_overrides": {"env": {"A": "x\nB=1"}}}, ["gpu_memory_overrides.env.A", "one line"]),
    "interpolation": (
        {"gpu_memory_overrides": {"env": {"A": "${HOME}"}}},
        ["A: python-dotenv replaces ${", "leave it out"],
    ),
    "contradiction": ({"gpu_memory_overrides": {"env": {"CHAT_NUM_CTX": 8192}}}, ["= 8192 contradicts", "= 4096"]),
    "not-whole": (
        {"gpu_memory_profile": "mine", "gpu_memory_profiles": {"mine": {"intent": {"num_ctx": 2048}}}},
        ["gpu_memory_profiles.mine.intent lacks num_parallel", "extends: stable"],
    ),
    "chain": (
        {
            "gpu_memory_profile": "mine",
            "gpu_memory_profiles": {
                "mine": {"extends": "base"},
                "base": {"extends": "stable", "intent": {"num_ctx": "x"}},
            },
        },
        ["gpu_memory_profiles.base.intent.num_ctx = 'x'", "(mine extends base)"],
    ),
    "circle": (
        {"gpu_memory_profile": "a", "gpu_memory_profiles": {"a": {"extends": "b"}, "b": {"extends": "a"}}},
        ["gpu_memory_profiles.b.extends = 'a'", "extends itself"],
    ),
    "no-threshold": ({"gpu_memory_profile": "baseline"}, ["baseline has no threshold", "gpu_memory_allow_unsafe"]),
    "preset": ({"gpu_memory_backend": "django"}, ["gpu_memory_backend = 'django'", "allowed: guide"]),
    "backend-key": ({"gpu_memory_backend": {"extends": "guide", "port": 1}}, ["gpu_memory_backend.port is not known"]),
    "backend-url": (
        {"gpu_memory_backend": {"extends": "guide", "health": {"url": "http://u:hunter2@127.0.0.1/"}}},
        ["gpu_memory_backend.health.url must have no user and no password"],
    ),
    "backend-unit": ({"gpu_memory_backend": {"extends": "guide", "unit": "a b"}}, ["gpu_memory_backend.unit = 'a b'"]),
    "header": (
        {
            "gpu_memory_backend": {
                "extends": "guide",
                "load": {"url": "http://127.0.0.1/", "headers": {"X": "hunter2\n"}},
            }
        },
        ["gpu_memory_backend.load.headers: 'X'", "one line of text"],
    ),
    "ollama": ({"gpu_memory_ollama": {"url": "127.0.0.1:11434"}}, ["gpu_memory_ollama.url", "must be an http address"]),
    "number": ({"gpu_memory_load_requests": "many"}, ["gpu_memory_load_requests = 'many'", "from 0 to 1000"]),
    "flag": ({"gpu_memory_strict": "maybe"}, ["gpu_memory_strict = 'maybe'", "true or false"]),
    "verify": ({"gpu_memory_verify": "sometimes"}, ["gpu_memory_verify = 'sometimes'", "changed, always, never"]),
    "models": ({"gpu_memory_models": {"a": 1}}, ["gpu_memory_models", "list of model names"]),
    "misspelt": (
        {"gpu_memory_profle": "conservative", "gpu_memory_max_fail_percent": 5, "gpu_memory_rack": "r1"},
        [
            "gpu_memory_profle is no variable of this collection; did you mean gpu_memory_profile? (",
            "did you mean gpu_memory_max_fail_percentage?",
        ],
    ),
    "unresolved": (
        {"gpu_memory_overrides": "{{ no_such_variable }}"},
        ["a variable of this host cannot be resolved: 'no_such_variable' is undefined"],
    ),
    "many": (
        {"gpu_memory_profile": "x", "gpu_memory_verify": "y", "gpu_memory_strict": "z", "gpu_memory_ollama": 3},
        ["gpu_memory_profile = 'x'", "gpu_memory_verify = 'y'", "gpu_memory_strict = 'z'", "gpu_memory_ollama = 3"],
    ),
}
PICTURE = f"""
find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log -o -path /tmp \\) -prune -o \\
  -printf '%p %y %m %U:%G %s %T@ %C@ %l\\n' | sort
find /etc /usr/local /var/lib {BACKEND} -xdev -type f -exec sha256sum {{}} + | sort -k 2
systemctl show ollama selo-backend --property=MainPID,ActiveEnterTimestampMonotonic
"""


def test_every_bad_declaration_is_refused_and_the_host_is_untouched(host: Host, tmp_path: Path) -> None:
    before = host.read(PICTURE)
    inventory = aliases(tmp_path, {name: variables for name, (variables, _) in INVALID.items()})
    report = tmp_path / "report"
    done = playbook("playbooks/apply.yml", report=report, inventory=inventory, gpu_memory_batches=["100%"])
    assert done.returncode != 0
    found = records(report)
    assert set(found) == set(INVALID), done.stdout[-3000:]
    for name, (_, said) in INVALID.items():
        assert found[name]["verdict"] == "refused", (name, found[name])
        for words in said:
            assert words in found[name]["reason"], (name, found[name]["reasons"])
    assert "aliases.yml" in found["range"]["reason"]
    assert "hunter2" not in done.stdout
    assert "hunter2" not in "".join(path.read_text() for path in report.iterdir())
    assert host.read(PICTURE) == before
