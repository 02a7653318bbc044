"""The commands that the output suggests, pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from ansible import context
from ansible.cli.playbook import PlaybookCLI
from ansible.utils.context_objects import CLIArgs
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import suggested_commands
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_text

ROLLBACK = "selo.gpu_memory.rollback"
GIVEN = {
    "nothing": "",
    "an inventory": "-i /srv/hosts.yml",
    "several": "-i /srv/hosts.yml -i gpu01,gpu02",
    "a path with a blank and a quote": "-i '/srv/the host'\"'\"'s/hosts.yml'",
    "passwords to ask for": "--ask-pass --ask-become-pass --ask-vault-pass",
    "vaults": "--vault-id=dev@prompt --vault-id=prod@vault.py --vault-password-file=/srv/vault",
    "a user and a key": "-u ops --private-key=/srv/key --become --become-method=su --become-user=admin",
    "ssh": "--ssh-common-args='-o ProxyJump=bastion' --ssh-extra-args=-6",
    "password files": "--connection-password-file=/srv/a --become-password-file=/srv/b",
    "a local connection": "-i localhost, -c local",
    "variable files": "-e @/srv/variables.yml",
}


@pytest.fixture(autouse=True)
def of_no_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({}))
    monkeypatch.setattr(
        context, "_init_global_context", lambda given: setattr(context, "CLIARGS", CLIArgs(vars(given)))
    )
    yield


def suggested(options: str) -> str:
    """What a run with these options suggests, as Ansible's own command line has read them."""
    PlaybookCLI(["ansible-playbook", *shlex.split(options), "playbooks/apply.yml"]).parse()
    return suggested_commands.of_this_run(ROLLBACK)


@pytest.mark.parametrize("options", GIVEN.values(), ids=GIVEN)
def test_the_options_of_this_run_are_carried(options: str) -> None:
    found = host_text.for_host(suggested(options), "gpu01")
    words = shlex.split(found)
    assert words[0] == "ansible-playbook" and words[-3:] == [ROLLBACK, "--limit", "gpu01"]
    assert sorted(words[1:-3]) == sorted(shlex.split(options))


@pytest.mark.parametrize("options", GIVEN.values(), ids=GIVEN)
def test_a_suggested_command_suggests_itself(options: str) -> None:
    once = suggested(options)
    again = suggested(once.removeprefix("ansible-playbook").replace(f" {ROLLBACK} --limit {{host}}", ""))
    assert once == again


def test_what_could_be_secret_or_is_only_of_this_run_stays_out() -> None:
    options = '-e token=hidden -e \'{"token": "hidden"}\' --check --diff --limit gpu01,gpu02 -t some -vv -f 3'
    assert suggested(options) == f"ansible-playbook {ROLLBACK} --limit {{host}}"


def test_what_the_configuration_says_is_not_repeated() -> None:
    given = {"inventory": ("/etc/ansible/hosts",), "remote_user": "ops", "become": True, "connection": "ssh"}
    configured = {"inventory": ["/etc/ansible/hosts"], "remote_user": "ops", "become": True, "connection": "ssh"}
    assert suggested_commands.command(ROLLBACK, given, configured) == f"ansible-playbook {ROLLBACK} --limit {{host}}"
    assert "-u ops" in suggested_commands.command(ROLLBACK, given, {**configured, "remote_user": None})


def test_a_host_is_one_word_whatever_its_name() -> None:
    assert shlex.split(host_text.for_host(suggested(""), "a b;c"))[-1] == "a b;c"
