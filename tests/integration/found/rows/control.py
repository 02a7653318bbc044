"""Found hosts: playbooks, inventories, sudo and what else is the controller's."""

from __future__ import annotations

from tests.integration.found.condition import Found

SUDOERS = "/etc/sudoers.d/operator"
SUDO = "ansible/ansible#31131"
BECOME = "https://docs.ansible.com/ansible/latest/user_guide/become.html"
PASSWORD = f"echo 'operator ALL=(ALL:ALL) ALL' > {SUDOERS}; echo operator:secret-words | chpasswd"

ROWS: list[Found] = [
    Found(
        "sudo_requiretty",
        f"printf 'Defaults:operator requiretty\\noperator ALL=(ALL:ALL) NOPASSWD: ALL\\n' > {SUDOERS}",
        "fail",
        ("must have a tty", "ansible_pipelining: false"),
        SUDO,
        short=True,
    ),
    Found("sudo_password_missing", PASSWORD, "fail", ("Missing sudo password", "--ask-become-pass"), BECOME),
    Found(
        "sudo_password_wrong",
        PASSWORD,
        "fail",
        ("Incorrect sudo password", "--ask-become-pass"),
        BECOME,
        variables={"ansible_become_password": "other-words"},
        hidden=("other-words",),
    ),
    Found(
        "sudo_not_in_sudoers",
        f"rm {SUDOERS}; echo operator:secret-words | chpasswd",
        "fail",
        ("not in the sudoers file", "ansible_user"),
        SUDO,
        variables={"ansible_become_password": "secret-words"},
        hidden=("secret-words",),
    ),
    Found(
        "become_false",
        ":",
        "fail",
        ("needs root on the host", "become: true"),
        BECOME,
        variables={"ansible_become": False},
    ),
    Found(
        "status_password_missing",
        PASSWORD,
        None,
        ("NOT READABLE", "Missing sudo password", "1 host: 1 not readable"),
        BECOME,
        playbook="playbooks/status.yml",
    ),
]
