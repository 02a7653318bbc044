# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that the output suggests: they work when pasted where this run was started."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from ansible import constants, context

# What says where the hosts are and how to get at them: (in `context.CLIARGS`, on the command line).
SWITCHES = (
    ("ask_pass", "--ask-pass"),
    ("become", "--become"),
    ("become_ask_pass", "--ask-become-pass"),
    ("ask_vault_pass", "--ask-vault-pass"),
)
VALUES = (
    ("inventory", "-i"),
    ("remote_user", "-u"),
    ("private_key_file", "--private-key"),
    ("connection", "-c"),
    ("connection_password_file", "--connection-password-file"),
    ("ssh_common_args", "--ssh-common-args"),
    ("ssh_extra_args", "--ssh-extra-args"),
    ("sftp_extra_args", "--sftp-extra-args"),
    ("scp_extra_args", "--scp-extra-args"),
    ("become_method", "--become-method"),
    ("become_user", "--become-user"),
    ("become_password_file", "--become-password-file"),
    ("vault_ids", "--vault-id"),
    ("vault_password_files", "--vault-password-file"),
)
# Ansible fills these in where the command line has none, from ansible.cfg and ANSIBLE_*, which the next run reads too.
CONFIGURED = {
    "inventory": "DEFAULT_HOST_LIST",
    "remote_user": "DEFAULT_REMOTE_USER",
    "private_key_file": "DEFAULT_PRIVATE_KEY_FILE",
    "connection": "DEFAULT_TRANSPORT",
    "connection_password_file": "CONNECTION_PASSWORD_FILE",
    "become_method": "DEFAULT_BECOME_METHOD",
    "become_user": "DEFAULT_BECOME_USER",
    "become_password_file": "BECOME_PASSWORD_FILE",
    "ask_pass": "DEFAULT_ASK_PASS",
    "become": "DEFAULT_BECOME",
    "become_ask_pass": "DEFAULT_BECOME_ASK_PASS",
    "ask_vault_pass": "DEFAULT_ASK_VAULT_PASS",
}


def of_this_run(playbook: str) -> str:
    """`playbook` as a command for one host, for which C({host}) stands, with the options of this run."""
    configured = {name: getattr(constants, constant, None) for name, constant in CONFIGURED.items()}
    return command(playbook, context.CLIARGS, configured)


def command(playbook: str, given: Mapping[str, object], configured: Mapping[str, object]) -> str:
    """`playbook`: its name in the collection, which works anywhere. `given`: as `context.CLIARGS`.

    Of `-e` only files are carried: values may be secret, and would stand in reports and in the shell's history.
    """
    words = ["ansible-playbook", *_options(given, configured), playbook]
    return f"{shlex.join(words)} --limit {{host}}"


def _options(given: Mapping[str, object], configured: Mapping[str, object]) -> Iterator[str]:
    for name, option in VALUES:
        value = given.get(name)
        if value and _listed(value) != _listed(configured.get(name)):
            for one in _listed(value):
                # A value that begins with a dash, as those of ssh do, would be taken for an option.
                yield from [f"{option}={one}"] if option.startswith("--") else [option, one]
    for name, option in SWITCHES:
        if given.get(name) and not configured.get(name):
            yield option
    for value in _listed(given.get("extra_vars")):
        if value.startswith("@"):
            yield from ("-e", value)


def _listed(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)] if value else []
