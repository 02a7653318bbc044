"""Found hosts: who answers at Ollama's address, where that is not plainly the unit."""

from __future__ import annotations

from tests.integration.faults.fault_lab import DROP_INS
from tests.integration.found.condition import Found
from tests.integration.found.rows.servers import ANSWERS, CONTAINER, OURS_STOPPED, another
from tests.integration.found.rows.units import EXEC_PAGE, RELOAD, UNITS, drop_in

URL = "http://127.0.0.1:11434"
ANSWERED = f"{ANSWERS} --output /dev/null {URL}/api/version"
SERVE = "HOME=/usr/share/ollama exec /usr/local/bin/ollama serve"
REFUSED_CONTAINER = ("a container is not served yet", "start ollama.service")
BY_HAND = ("started by hand", "stop it and start ollama.service")

# A user's own systemd, as `loginctl enable-linger operator` starts it; what pam_systemd sets is set by hand here.
USER_MANAGER = (
    "install -d -o operator -m 0700 /run/user/1000; mkdir -p /run/systemd/system/user@1000.service.d\n"
    "printf '[Service]\\nEnvironment=XDG_RUNTIME_DIR=/run/user/1000\\n' "
    f"> /run/systemd/system/user@1000.service.d/lab.conf; {RELOAD}; systemctl start user@1000\n"
    'as_user() { runuser -u operator -- env XDG_RUNTIME_DIR=/run/user/1000 OLLAMA_MODELS=/tmp/models "$@"; }'
)
USER_UNIT = (
    f"{OURS_STOPPED}; {USER_MANAGER}\n"
    "install -d -o operator ~operator/.config ~operator/.config/systemd ~operator/.config/systemd/user\n"
    "printf '[Service]\\nExecStart=/usr/local/bin/ollama serve\\n' > ~operator/.config/systemd/user/ollama.service\n"
    f"as_user systemctl --user start ollama\n{ANSWERED}"
)


def in_a_users_scope(name: str) -> str:
    """A server in a scope of the user's systemd, as desktops, terminals and rootless engines make them."""
    run = f"as_user setsid systemd-run --user --quiet --scope --unit={name} /usr/local/bin/ollama serve"
    return f"{OURS_STOPPED}; {USER_MANAGER}\n{run} </dev/null >/dev/null 2>&1 &\n{ANSWERED}"


def started_by(unit: str, program: str) -> str:
    """A stand-in of a service that starts other programs, Ollama among them, and stays."""
    return (
        f"{OURS_STOPPED}\nprintf '#!/bin/sh\\n({SERVE}) &\\nexec sleep infinity\\n' > {program}; chmod 0755 {program}\n"
        f"systemd-run --quiet --unit={unit} --uid=ollama {program}\n{ANSWERED}"
    )


def passed_on(unit: str, program: str) -> str:
    """Ollama at another port, and a socket at its usual one whose service passes connections on, under any name."""
    run = f"systemd-run --quiet --unit={unit} --socket-property=ListenStream=127.0.0.1:11434"
    return (
        f"{listening('127.0.0.1:11500')}\n{ANSWERS} --output /dev/null http://127.0.0.1:11500/api/version\n"
        f"{run} bash -c 'exec -a {program} /lib/systemd/systemd-socket-proxyd 127.0.0.1:11500'\n{ANSWERED}"
    )


LAN = "$(hostname -I | cut -d' ' -f1)"


def listening(host: str, *more: str) -> str:
    """The unit with this OLLAMA_HOST; LAN stands for the host's own address."""
    lines = drop_in(f"Environment=OLLAMA_HOST={host}", *more)
    return f'{lines}; sed -i "s/LAN/{LAN}/" {DROP_INS}/override.conf\n{RELOAD}\nsystemctl restart ollama'


# Until the unit's server answers in its own network: a proxy does not wait for it.
ANSWERS_INSIDE = (
    "until nsenter --net --target $(systemctl show ollama --property MainPID --value) "
    f"curl -fsm 1 {URL}/api/version; do sleep 0.2; done"
)
NETWORK = "/run/netns/ai"
IN_A_NETWORK = (
    "ip netns add ai; ip link add ai0 type veth peer name ai1 netns ai; ip address add 10.200.0.1/24 dev ai0\n"
    "ip link set ai0 up; ip -n ai address add 10.200.0.2/24 dev ai1; ip -n ai link set ai1 up; ip -n ai link set lo up"
)
SOCKET_PROXYD = "https://www.freedesktop.org/software/systemd/man/devel/systemd-socket-proxyd.html"
# A Quadlet's unit runs `podman run --cgroups=split`, which makes this group below the unit's own. Not podman itself.
FAKE_PODMAN = f"""#!/bin/bash
for mount in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
  while IFS=: read -r _ names path; do
    if test "$names" = name=systemd -o -z "$names" && test -e "$mount$path/cgroup.procs"; then
      group=$mount$path/libpod-payload-{CONTAINER}
      mkdir -p "$group" && echo $$ > "$group/cgroup.procs"
    fi
  done < /proc/self/cgroup
done
{SERVE}
"""

ROWS: list[Found] = [
    # --- users' own ---------------------------------------------------------------------------------------------------
    Found(
        "a_user_unit_answers",
        USER_UNIT,
        "refused",
        ("the user unit ollama.service of uid 1000", "only units of the system are served", "start ollama.service"),
        "ollama/ollama#17433",
        short=True,
    ),
    Found(
        "a_user_unit_is_discovered",
        USER_UNIT,
        None,
        ("Ollama runs here as the user unit ollama.service of uid 1000",),
        "ollama/ollama#17433",
        playbook="playbooks/discover.yml",
        arguments=("--check",),
    ),
    Found("a_terminal_of_tmux_answers", in_a_users_scope("tmux-spawn-1"), "refused", BY_HAND, "ollama/ollama#1581"),
    Found(
        "a_login_session_answers",  # `nohup ollama serve &`, in the scope that pam_systemd would make
        f"{OURS_STOPPED}\n{another('session-7', '--scope', '--slice=user-1000.slice')}",
        "refused",
        BY_HAND,
        "ollama/ollama#6478",
    ),
    # --- what other services start ------------------------------------------------------------------------------------
    Found(
        "a_cron_job_answers",
        started_by("cron", "/usr/local/sbin/site-cron"),
        "refused",
        ("which cron.service started", "have ollama.service run it instead"),
        "ollama/ollama#8341",
    ),
    Found(
        "rc_local_answers",
        f"{OURS_STOPPED}\nprintf '#!/bin/sh\\n({SERVE}) &\\n' > /etc/rc.local; chmod 0755 /etc/rc.local\n"
        f"{RELOAD}; systemctl start rc-local\n{ANSWERED}",
        "refused",
        ("which rc-local.service started", "have ollama.service run it instead"),
        "ollama/ollama#8341",
    ),
    Found(
        "a_snap_answers",
        f"{OURS_STOPPED}\n{another('snap.ollama.listener')}",
        "refused",
        ("the unit snap.ollama.listener.service", "gpu_memory_ollama.unit=snap.ollama.listener.service"),
        "ollama/ollama#2432",
    ),
    # --- containers ---------------------------------------------------------------------------------------------------
    Found(
        "a_quadlet_answers",
        f"cat > /usr/local/bin/podman <<'END'\n{FAKE_PODMAN}END\nchmod 0755 /usr/local/bin/podman\n"
        f"{drop_in('ExecStart=', 'ExecStart=/usr/local/bin/podman run --cgroups=split', 'Delegate=yes', 'User=root')}\n"
        f"{RELOAD}; systemctl restart ollama\n{ANSWERED}",
        "refused",
        ("the container podman 3f1c2ab90d5e", *REFUSED_CONTAINER),
        "ollama/ollama#10118",
    ),
    Found(
        "a_rootless_container_answers",
        in_a_users_scope(f"libpod-{CONTAINER}"),
        "refused",
        ("the container podman 3f1c2ab90d5e", *REFUSED_CONTAINER),
        "ollama/ollama#10118",
    ),
    Found(
        "a_pod_of_kubernetes_answers",
        f"{OURS_STOPPED}\n"
        f"{another(f'cri-containerd-{CONTAINER}.scope', '--scope', '--slice=kubepods-besteffort-pod1.slice')}",
        "refused",
        ("the container cri-containerd 3f1c2ab90d5e", *REFUSED_CONTAINER),
        "otwld/ollama-helm#88",
    ),
    Found(
        "a_machine_of_nspawn_answers",
        f"{OURS_STOPPED}\n{another('machine-ai.scope', '--scope', '--slice=machine.slice')}",
        "refused",
        ("the container machine ai", *REFUSED_CONTAINER),
        "systemd/systemd#6166",
    ),
    Found(
        "a_sandbox_of_flatpak_answers",
        in_a_users_scope("app-flatpak-com.jeffser.Alpaca-77"),
        "refused",
        ("the container flatpak com.jeffser.Alpaca", *REFUSED_CONTAINER),
        "Jeffser/Alpaca#1136",
    ),
    Found(
        "a_container_without_a_control_group_answers",
        f"{OURS_STOPPED}\nsetsid unshare --pid --fork --mount-proc runuser -u ollama -- env HOME=/usr/share/ollama "
        f"/usr/local/bin/ollama serve </dev/null >/dev/null 2>&1 &\n{ANSWERED}",
        "refused",
        ("in a PID namespace of its own, as a container has one", *REFUSED_CONTAINER),
        "ollama/ollama#17069",
    ),
    Found(
        "a_published_port_of_a_container_answers",
        passed_on("docker", "/usr/bin/docker-proxy"),
        "refused",
        ("a container whose port process", "docker-proxy", *REFUSED_CONTAINER),
        "ollama/ollama#4919",
    ),
    Found(
        "a_container_answers_at_its_own_address",
        f"{IN_A_NETWORK}\nsystemctl stop ollama\nsetsid systemd-run --quiet --scope --unit=docker-{CONTAINER}.scope "
        "ip netns exec ai env HOME=/usr/share/ollama OLLAMA_HOST=0.0.0.0 /usr/local/bin/ollama serve </dev/null "
        f">/dev/null 2>&1 &\n{ANSWERS} --output /dev/null http://10.200.0.2:11434/api/version",
        "refused",
        ("the container docker 3f1c2ab90d5e", *REFUSED_CONTAINER),
        "ollama/ollama#4919",
        variables={"gpu_memory_ollama": {"url": "http://10.200.0.2:11434"}},
    ),
    # --- what passes requests on --------------------------------------------------------------------------------------
    Found(
        "a_proxy_answers",
        passed_on("nginx", "nginx"),
        "refused",
        ("the unit nginx.service", "may pass requests on", "gpu_memory_ollama.url=http://127.0.0.1:11500"),
        "ollama/ollama#6134",
    ),
    Found(
        "the_unit_has_a_network_of_its_own",
        f"{IN_A_NETWORK}\n{listening('10.200.0.2', f'NetworkNamespacePath={NETWORK}')}\n"
        f"{ANSWERS} --output /dev/null http://10.200.0.2:11434/api/version",
        "pass",
        (),
        EXEC_PAGE,
        variables={"gpu_memory_ollama": {"url": "http://10.200.0.2:11434"}},
    ),
    Found(
        "the_unit_has_a_network_that_nothing_reaches",
        f"{listening('127.0.0.1', 'PrivateNetwork=yes')}\n{ANSWERS_INSIDE}",
        "refused",
        ("in a network namespace of its own", "the socket that passes requests on"),
        EXEC_PAGE,
    ),
    Found(
        "a_socket_passes_on_into_the_units_network",
        f"{listening('127.0.0.1', 'PrivateNetwork=yes')}\n{ANSWERS_INSIDE}\n"
        f"printf '[Socket]\\nListenStream=127.0.0.1:11434\\n' > {UNITS}/llm.socket\n"
        "printf '[Unit]\\nAfter=ollama.service\\nJoinsNamespaceOf=ollama.service\\n[Service]\\nPrivateNetwork=yes\\n"
        f"ExecStart=/lib/systemd/systemd-socket-proxyd 127.0.0.1:11434\\n' > {UNITS}/llm.service\n"
        f"{RELOAD}; systemctl start llm.socket; {ANSWERED}",
        "pass",
        (),
        SOCKET_PROXYD,
    ),
    # --- OLLAMA_HOST --------------------------------------------------------------------------------------------------
    Found(
        "the_unit_listens_in_the_lan_only",
        listening("LAN") + f"\n{ANSWERS} --output /dev/null http://{LAN}:11434/api/version",
        "refused",
        ("ollama.service listens at http://", "and not at http://127.0.0.1:11434", "gpu_memory_ollama.url=http://"),
        "ollama/ollama#8525",
    ),
    Found(
        "the_unit_listens_everywhere_at_another_port",
        listening("http://[::]:8080/ollama") + f"\n{ANSWERS} --output /dev/null http://127.0.0.1:8080/api/version",
        "refused",
        ("listens at http://127.0.0.1:8080", "gpu_memory_ollama.url=http://127.0.0.1:8080"),
        "ollama/ollama#2194",
    ),
]
