"""Found hosts: systemd units, their drop-ins, environment and files."""

from __future__ import annotations

from tests.integration.faults.fault_lab import BACKEND, DROP_INS
from tests.integration.found.condition import Found

UNITS = "/etc/systemd/system"

STOCK = "ollama/ollama#2423"  # drop-ins are what an owner adds; the script leaves none, and no directory for one

SECRET = "correct-horse-battery"
OF_FILES = {
    "DB_PASSWORD": "~Tr0ub4dor",
    "API_TOKEN": "/Xy+abcdefg",
    "PIN_SECRET": "83471290",
    "MODEL_STORE_PASSWORD": "hunterhunter",
    "SHORT_PASSWORD": "xyzw",
    "DB_PASS": "tigr",
    "SMTP_PASS": "83471291",
    "MYSQL_PASS": "/vault/hunter9",
    "MODEL_STORE_PASS": "kittenhunter",
    "ADMIN_PIN": "73190458",
    "MODEL_HUB_KEY": "kittenkitten",
    "REDIS_AUTH": "/Zq9xPl",
    "HF_TOKENS": "/aaa1",
    "LC_SECRET": "lcsecretvalue",
    "PASSWORD_HOST": "/s3cr3t",
    "HTTPS_PROXY": "kitty:kittens5@proxy.example:3128",
}
OF_SYSTEMD = {"SET_BY_HAND": "set-by-hand-battery", "BY_DEFAULT": "by-default-battery"}
OF_BACKEND = ("backend-unit-battery", "backend-file-battery", "backend-old-battery")  # its unit's, its .env's
EXEC_PAGE = "https://man7.org/linux/man-pages/man5/systemd.exec.5.html"
UNIT_PAGE = "https://man.archlinux.org/man/systemd.unit.5.en"
RELOAD = "systemctl daemon-reload"


def drop_in(*lines: str, name: str = "override.conf", directory: str = DROP_INS) -> str:
    text = "\\n".join(["[Service]", *lines])
    return f"mkdir -p {directory} && printf '{text}\\n' > {directory}/{name}"


def with_files(*named: str, **content: str) -> str:
    """A drop-in with these EnvironmentFile= lines, and files below /etc/site with one line each."""
    files = "; ".join(f"echo '{line}' > /etc/site/{name}" for name, line in content.items())
    lines = drop_in(*(f"EnvironmentFile={path}" for path in named))
    return f"mkdir -p /etc/site; {files or ':'}; {lines}; {RELOAD}"


def going_along(**directives: str) -> str:
    """Units `site-NAME.service` with this line in [Unit], which run."""
    units = {f"site-{name.replace('_', '-')}": line for name, line in directives.items()}
    texts = "; ".join(
        f"printf '[Unit]\\n%s\\n[Service]\\nExecStart=/bin/sleep infinity\\n' '{line}' > {UNITS}/{name}.service"
        for name, line in units.items()
    )
    return f"{texts}; {RELOAD}; systemctl start {' '.join(units)}"


OF_PROGRAM = (
    "systemd has it so in memory for ollama.service, but /usr/local/bin/start-ollama, by which its ExecStart starts "
    "the server, changes it; take that out there"
)
ALONG = going_along(part="PartOf=ollama.service", needs="Requires=ollama.service") + (
    f"; sed -i '/^Requires=/aAfter=ollama.service' {UNITS}/site-needs.service; {RELOAD}"
)
TAKE_OUT = "take the line out"
PARALLEL_1 = "OLLAMA_NUM_PARALLEL=1"

ROWS: list[Found] = [
    # tests/integration/long/test_suites.py has Debian 11 and 13, and more.
    *(
        Found(f"stock_with_{backend}", f"! test -e {DROP_INS}", "pass", (), STOCK, backend=backend, short=True)
        for backend in ("guide", "none")
    ),
    Found(
        "environment_file_of_a_drop_in_wins",
        f"echo OLLAMA_NUM_PARALLEL=4 > /etc/default/ollama; mkdir -p {DROP_INS}\n"
        f"printf '[Service]\\nEnvironmentFile=/etc/default/ollama\\n' > {DROP_INS}/20-owner.conf\n"
        "systemctl daemon-reload",
        "refused",
        ("/etc/default/ollama", "OLLAMA_NUM_PARALLEL=4", "take the line out"),
        "ollama/ollama#5601",
        short=True,
    ),
    # --- EnvironmentFile ----------------------------------------------------------------------------------------------
    Found(
        "first_of_two_environment_files_wins",
        with_files("/etc/site/a", "/etc/site/b", a=PARALLEL_1, b="OTHER=1"),
        "refused",
        ("/etc/site/a", PARALLEL_1, TAKE_OUT),
        "ollama/ollama#5601",
        short=True,
    ),
    Found(
        "environment_file_by_pattern_wins",
        with_files("/etc/site/*", "/etc/lab/options", a="OTHER=1", b=PARALLEL_1),
        "refused",
        ("/etc/site/b", PARALLEL_1, TAKE_OUT),
        EXEC_PAGE,
    ),
    Found(
        "environment_files_of_several_drop_ins",
        f"{with_files('-/etc/site/a', a=PARALLEL_1)}\n{drop_in('EnvironmentFile=-/etc/site/b', name='a.conf')}\n"
        f"{RELOAD}",
        "refused",
        ("/etc/site/a", PARALLEL_1, TAKE_OUT),
        EXEC_PAGE,
        suite="bullseye",
    ),
    Found(
        "environment_files_taken_back_by_an_empty_line",
        f"{with_files('/etc/site/a', a=PARALLEL_1)}; {drop_in('EnvironmentFile=', name='zz-site.conf')}; {RELOAD}",
        "pass",
        (),
        EXEC_PAGE,
    ),
    Found(
        "optional_environment_file_is_not_there",
        with_files("-/etc/site/absent", a="OTHER=1"),
        "pass",
        (),
        EXEC_PAGE,
    ),
    Found(
        "environment_file_is_not_there_any_more",
        with_files("/etc/site/absent", a="OTHER=1"),
        "refused",
        ("/etc/site/absent, which is not there", "create it, or write EnvironmentFile=-/etc/site/absent"),
        EXEC_PAGE,
    ),
    Found(
        "first_environment_file_of_the_backend_wins",
        "mkdir -p /etc/site; echo CHAT_NUM_CTX=8192 > /etc/site/a; echo OTHER=1 > /etc/site/b\n"
        + drop_in(
            "EnvironmentFile=/etc/site/a",
            "EnvironmentFile=/etc/site/b",
            directory=f"{UNITS}/selo-backend.service.d",
        )
        + f"\n{RELOAD}; systemctl restart selo-backend\n"
        "until curl -fs http://127.0.0.1:8000/health; do sleep 0.5; done",
        "refused",
        ("/etc/site/a", "CHAT_NUM_CTX=8192", "load_dotenv() overrides nothing", TAKE_OUT),
        "theskumar/python-dotenv#79",
        backend="guide",
    ),
    Found(
        "secret_of_the_first_environment_file_is_printed_at_a_start",
        with_files("/etc/site/a", "/etc/site/b", a=f"FROM_VAULT={SECRET}", b="OTHER=1")
        + "\n"
        + drop_in(
            'ExecStartPre=/bin/sh -c \\\'if test -n "$OLLAMA_CONTEXT_LENGTH"; then echo Error: cannot use '
            "$FROM_VAULT; exit 3; fi\\'".replace("\\'", "\\047"),
            name="20-check.conf",
        )
        + f"\n{RELOAD}",
        "rolled_back",
        ("cannot use ********",),
        EXEC_PAGE,
        hidden=(SECRET,),
        short=True,
    ),
    Found(
        "secrets_of_the_backend_are_printed_at_a_start_of_ollama",
        f"mkdir -p /etc/site; echo FROM_VAULT={OF_BACKEND[0]} > /etc/site/a\n"
        + drop_in("EnvironmentFile=/etc/site/a", directory=f"{UNITS}/selo-backend.service.d")
        + f"""
cat >> {BACKEND}/.env <<'END'
OF_VENDOR={OF_BACKEND[1]}
TOPIC=memory
#OF_VENDOR={OF_BACKEND[2]}
END
"""
        + drop_in(
            'ExecStartPre=/bin/sh -c \\047if test -n "$OLLAMA_CONTEXT_LENGTH"; then echo Error: out of memory with '
            + " ".join(OF_BACKEND)
            + "; exit 3; fi\\047",
            name="20-check.conf",
        )
        + f"\n{RELOAD}; systemctl restart selo-backend\n"
        "until curl -fs http://127.0.0.1:8000/health; do sleep 0.5; done",
        "rolled_back",
        ("out of memory with ******** ******** ********",),
        "theskumar/python-dotenv#79",
        backend="guide",
        hidden=OF_BACKEND,
        short=True,
    ),
    Found(
        "secrets_of_every_look_are_printed_at_a_start",
        with_files("/etc/site/a", a="\\n".join(f"{name}={value}" for name, value in OF_FILES.items())).replace(
            "echo '", "printf '%b\\n' '"
        )
        + "\n"
        + f"printf '[Manager]\\nDefaultEnvironment=BY_DEFAULT={OF_SYSTEMD['BY_DEFAULT']}\\n' "
        "> /etc/systemd/system.conf\n"
        f"systemctl daemon-reload; systemctl set-environment SET_BY_HAND={OF_SYSTEMD['SET_BY_HAND']}\n"
        + drop_in(
            "PassEnvironment=SET_BY_HAND BY_DEFAULT",
            'ExecStartPre=/bin/sh -c \\047if test -n "$OLLAMA_CONTEXT_LENGTH"; then '
            + " ".join(["echo Error: failed with", *(f"${name}" for name in {**OF_FILES, **OF_SYSTEMD})])
            + "; exit 3; fi\\047",  # in one line: of a journal only the last few are quoted
            name="20-check.conf",
        )
        + f"\n{RELOAD}",
        "rolled_back",
        (" ".join(["failed with", *["********"] * len({**OF_FILES, **OF_SYSTEMD})]),),
        EXEC_PAGE,
        hidden=(*OF_FILES.values(), *OF_SYSTEMD.values(), "kittens5"),
    ),
    Found(
        "secrets_of_a_start_script_and_of_a_lint_are_printed_at_a_start",
        "printf '%s\n' '#!/bin/sh' 'export VENDOR_THING=plainscriptword' "
        '\'exec sh -c "export DEEPER=deepscriptword; sh -c \\"exec /usr/local/bin/ollama serve\\""\' '
        "> /usr/local/bin/start-ollama; chmod +x /usr/local/bin/start-ollama\n"
        + drop_in(
            "ExecStart=",
            "ExecStart=/usr/local/bin/start-ollama --vendor-key argsecretword",
            "Environment=VAULT_PASSWORD = lintsecretword",
            'ExecStartPre=/bin/sh -c \\047if test -n "$OLLAMA_CONTEXT_LENGTH"; then echo Error: login failed for '
            "plainscriptword and deepscriptword and argsecretword and proxy kitty:kittens5@proxy.example; "
            "exit 3; fi\\047",
            name="20-check.conf",
        )
        + f"\n{RELOAD}; systemctl restart ollama\n"
        "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
        "rolled_back",
        (
            "login failed for ******** and ******** and ******** and proxy ********@proxy.example",
            "ollama.service: Control process exited, code=exited, status=3/NOTIMPLEMENTED",
        ),
        EXEC_PAGE,
        hidden=("plainscriptword", "deepscriptword", "argsecretword", "lintsecretword", "kittens5"),
    ),
    # --- what systemd does not read -----------------------------------------------------------------------------------
    Found(
        "written_where_systemd_does_not_read_it",
        f"mkdir -p {DROP_INS} {UNITS}/ollama.d; {drop_in('Environment=OLLAMA_DEBUG=1', name='local')}\n"
        f"printf 'Environment=OLLAMA_DEBUG=1\\n' > {DROP_INS}/a.conf\n"
        f"printf '[Service]\\nEnvironment=OLLAMA_DEBUG = 1\\n' > {DROP_INS}/b.conf\n"
        f"printf '[Unit]\\nEnvironment=OLLAMA_DEBUG=1\\n' > {DROP_INS}/c.conf\n"
        f"printf '[Service]\\nEnvironment=OLLAMA_DEBUG=1\\n' > {UNITS}/ollama.d/d.conf\n"
        "echo OLLAMA_NUM_PARALLEL=4 >> /etc/environment; echo 'export OLLAMA_NUM_PARALLEL=4' >> /root/.bashrc\n"
        f"echo OLLAMA_NUM_PARALLEL=4 > /etc/default/ollama; {RELOAD}",
        "pass",
        (
            f"{DROP_INS}/local: systemd reads only drop-ins whose names end in .conf",
            f"{DROP_INS}/a.conf: Environment= stands above every section",
            f"{DROP_INS}/b.conf: Environment= for OLLAMA_DEBUG has a word that is no NAME=value",
            f"{DROP_INS}/c.conf: Environment= stands in [Unit]",
            f"{UNITS}/ollama.d/d.conf: systemd does not read the directory ollama.d",
            "/etc/environment: OLLAMA_NUM_PARALLEL is set here, but it is for logins",
            "/root/.bashrc: OLLAMA_NUM_PARALLEL is set here",
            "/etc/default/ollama: OLLAMA_NUM_PARALLEL is set here",
        ),
        "ollama/ollama#4569",
        short=True,
    ),
    Found(
        "environment_file_with_export",
        with_files("/etc/site/a", a="export OLLAMA_KEEP_ALIVE=1h"),
        "pass",
        ("/etc/site/a: systemd ignores the lines with `export`",),
        "ollama/ollama#5722",
    ),
    # --- places of units ----------------------------------------------------------------------------------------------
    Found(
        "units_are_read_only",
        f"mount --bind {UNITS} {UNITS}; mount -o remount,bind,ro {UNITS}",
        "refused",
        (f"{UNITS} is read-only", "NixOS", "/run/systemd/system"),
        "https://wiki.nixos.org/wiki/Ollama",
        short=True,
    ),
    Found(
        "units_are_read_only_in_check_mode",
        f"mount --bind {UNITS} {UNITS}; mount -o remount,bind,ro {UNITS}",
        None,  # check mode writes no record
        (f"{UNITS} is read-only", "NixOS"),
        "https://wiki.nixos.org/wiki/Ollama",
        arguments=("--check",),
    ),
    Found(
        "unit_is_masked_while_its_server_runs",
        f"mv {UNITS}/ollama.service /usr/lib/systemd/system/; {RELOAD}; systemctl mask ollama",
        "refused",
        ("ollama.service is masked", "systemctl unmask ollama.service"),
        UNIT_PAGE,
    ),
    Found(
        "unit_of_a_package",
        f"mv {UNITS}/ollama.service /usr/lib/systemd/system/; {RELOAD}",
        "pass",
        (),
        "https://build.opensuse.org/projects/home:cabelo:jax/packages/ollama/files/ollama.service?expand=0",
        suite="trixie",
    ),
    Found(
        "unit_is_linked",
        f"mkdir /opt/site && mv {UNITS}/ollama.service /opt/site/ && systemctl link /opt/site/ollama.service",
        "pass",
        (),
        UNIT_PAGE,
    ),
    Found(
        "unit_is_named_by_its_alias",
        f"systemctl disable --now ollama; mv {UNITS}/ollama.service {UNITS}/llm-server.service\n"
        f"printf 'Alias=ollama.service\\n' >> {UNITS}/llm-server.service; {RELOAD}; systemctl enable --now llm-server\n"
        "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
        "pass",
        ("0 fatal lines in the journal", "the server config says 1"),
        UNIT_PAGE,
    ),
    Found(
        "unit_has_failed",
        f"{drop_in('Restart=no')}; {RELOAD}; systemctl kill --signal=KILL ollama\n"
        "until systemctl is-failed ollama; do sleep 0.1; done",
        "refused",
        ("ollama.service does not come up", "status=9/KILL", "systemctl restart ollama.service"),
        UNIT_PAGE,
        hidden=("an apply starts it",),
    ),
    *(
        Found(
            f"wrapper_{does}",
            f"printf '%s\\n' '#!{by}' '{line}' '{serves}' > /usr/local/bin/start-ollama; "
            f"echo {PARALLEL_1} > /etc/default/ollama\n"
            f"chmod 755 /usr/local/bin/start-ollama; {drop_in('ExecStart=', 'ExecStart=/usr/local/bin/start-ollama')}\n"
            f"{RELOAD}; systemctl restart ollama\n"
            "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
            verdict,
            says,
            "ollama/ollama#5601",
        )
        for does, by, line, serves, verdict, says in (
            (
                "exports",
                "/bin/sh",
                f"export {PARALLEL_1}",
                "/usr/local/bin/ollama serve",
                "refused",
                ("/usr/local/bin/start-ollama", PARALLEL_1, TAKE_OUT),
            ),
            (
                "sources",
                "/bin/sh",
                "set -a; . /etc/default/ollama; set +a",
                "exec /usr/local/bin/ollama serve",
                "refused",
                ("/etc/default/ollama", PARALLEL_1, TAKE_OUT),
            ),
            (
                "computes",
                "/bin/sh",
                "export OLLAMA_NUM_PARALLEL=$((1 + 7))",
                "exec /usr/local/bin/ollama serve",
                "rolled_back",
                (OF_PROGRAM,),
            ),
            (
                "is_python",
                "/usr/bin/python3",
                'import os; os.environ["OLLAMA_NUM_PARALLEL"] = "1"',
                'os.execv("/usr/local/bin/ollama", ["ollama", "serve"])',
                "rolled_back",
                (OF_PROGRAM,),
            ),
            (
                "has_a_default",
                "/bin/sh",
                'export OLLAMA_NUM_PARALLEL="${OLLAMA_NUM_PARALLEL:-1}"',
                "exec /usr/local/bin/ollama serve",
                "pass",
                (),
            ),
        )
    ),
    *(
        Found(
            f"start_line_{name}",
            f"echo '# of the site\nOLLAMA_NUM_PARALLEL=4' > /etc/site.env\n"
            f"printf '%b\\n' '{script}' > /usr/local/bin/start\n"
            f"chmod 755 /usr/local/bin/start; {drop_in('ExecStart=', f'ExecStart={line}', *more)}\n"
            f"{RELOAD}; systemctl restart ollama\n"
            "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
            verdict,
            says,
            known_from,
        )
        for name, line, script, more, verdict, says, known_from in (
            (
                "is_env",
                "/usr/bin/env OLLAMA_NUM_PARALLEL=4 /usr/local/bin/ollama serve",
                "",
                (),
                "refused",
                ("ExecStart of ollama.service sets OLLAMA_NUM_PARALLEL=4", "take it out there"),
                "ollama/ollama#5601",
            ),
            (
                "is_env_i",
                "/usr/bin/env -i HOME=/usr/share/ollama /usr/local/bin/ollama serve",
                "",
                (),
                "refused",
                ("by env -i, which takes the unit", "OLLAMA_NUM_PARALLEL", "take env -i out"),
                "https://man7.org/linux/man-pages/man1/env.1.html",
            ),
            (
                "is_a_login_shell",
                '/sbin/runuser -l ollama -s /bin/sh -c "exec /usr/local/bin/ollama serve"',
                "",
                ("User=root",),
                "refused",
                ("by runuser -l, which takes the unit", "OLLAMA_NUM_PARALLEL", "set User= in the unit"),
                "https://man7.org/linux/man-pages/man1/runuser.1.html",
            ),
            (
                "exports_by_xargs",
                "/usr/local/bin/start",
                '#!/bin/sh\\nexport $(grep -v "^#" /etc/site.env | xargs)\\nexec /usr/local/bin/ollama serve',
                (),
                "refused",
                ("/etc/site.env, by which ExecStart", "sets OLLAMA_NUM_PARALLEL=4", TAKE_OUT),
                "ollama/ollama#5601",
            ),
            (
                "reads_what_no_text_decides",
                "/usr/local/bin/start",
                '#!/bin/sh\\nif [ -r "/etc/site${X}" ]; then . "/etc/site${X}"; fi\\nexec /usr/local/bin/ollama serve',
                (),
                "pass",
                ("/usr/local/bin/start, by which ExecStart of ollama.service starts the server, reads", "look there"),
                "ollama/ollama#5601",
            ),
            (
                "echoes_the_name",
                "/usr/local/bin/start",
                '#!/bin/sh\\necho "OLLAMA_NUM_PARALLEL=1 is not what we set: $OLLAMA_NUM_PARALLEL"\\n'
                "exec /usr/local/bin/ollama serve",
                (),
                "pass",
                (),
                "ollama/ollama#5601",
            ),
        )
    ),
    Found(
        "unit_is_of_an_init_script",
        f"systemctl disable --now ollama; mv {UNITS}/ollama.service /opt/\n"
        "printf '%s\\n' '#!/bin/sh' '### BEGIN INIT INFO' '# Provides: ollama' '# Required-Start: $network' "
        "'# Required-Stop:' '# Default-Start: 2 3 4 5' '# Default-Stop: 0 1 6' '### END INIT INFO' "
        "'OPTS=\"OLLAMA_MAX_LOADED_MODELS=3 HOME=/usr/share/ollama\"' 'case \"$1\" in' "
        "'start) start-stop-daemon --start --background --make-pidfile --pidfile /run/ollama.pid --chuid ollama "
        '--startas /bin/bash -- -c "$OPTS exec /usr/local/bin/ollama serve" ;;\' '
        "'stop) start-stop-daemon --stop --retry 10 --pidfile /run/ollama.pid ;;' esac > /etc/init.d/ollama\n"
        f"chmod 755 /etc/init.d/ollama; {RELOAD}; systemctl start ollama\n"
        "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
        "refused",
        (
            "/etc/init.d/ollama, the init script of which systemd makes ollama.service, sets",
            "OLLAMA_MAX_LOADED_MODELS=3",
            TAKE_OUT,
        ),
        "ollama/ollama#11316",
    ),
    Found(
        "unit_is_transient",
        f"systemctl disable --now ollama; mv {UNITS}/ollama.service /opt/; {RELOAD}\n"
        "systemd-run --quiet --unit=ollama --uid=ollama /usr/local/bin/ollama serve\n"
        "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
        "refused",
        ("ollama.service is a transient unit", "give it a unit file"),
        UNIT_PAGE,
    ),
    Found(
        "unit_is_an_instance",
        f"systemctl disable --now ollama; mv {UNITS}/ollama.service {UNITS}/ollama@.service; {RELOAD}\n"
        "systemctl start ollama@16gb; until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
        "pass",
        (),
        UNIT_PAGE,
        variables={"gpu_memory_ollama": {"unit": "ollama@16gb.service"}},
    ),
    Found(
        "backend_is_deployed_as_capistrano_does",
        f"""
mkdir -p /srv/cap/releases /srv/cap/shared
mv {BACKEND} /srv/cap/releases/1
mv /srv/cap/releases/1/.env /srv/cap/shared/
ln -s ../../shared/.env /srv/cap/releases/1/.env
ln -s releases/1 /srv/cap/current
ln -s /srv/cap/current {BACKEND}
chown -hR selo: /srv/cap
systemctl restart selo-backend
""",
        "pass",
        ("PASS",),
        "https://capistranorb.com/documentation/getting-started/structure/",
        backend="guide",
    ),
    Found(
        "drop_in_is_a_link",
        f"mkdir -p /opt/site {DROP_INS}; printf '[Service]\\nEnvironment={PARALLEL_1}\\n' > /opt/site/ollama.conf\n"
        f"ln -s /opt/site/ollama.conf {DROP_INS}/zzz-site.conf\n"
        f"ln -s /opt/site/absent {DROP_INS}/absent.conf; {RELOAD}",
        "refused",
        (f"{DROP_INS}/zzz-site.conf", PARALLEL_1, TAKE_OUT),
        UNIT_PAGE,
    ),
    *(
        Found(
            f"drop_ins_are_in_a_linked_directory{of}",
            f"{drop_in('Environment=OLLAMA_DEBUG=1', directory='/opt/site/ollama.service.d')}; {own}\n"
            f"ln -s /opt/site/ollama.service.d {DROP_INS}; {RELOAD}; systemctl restart ollama",
            verdict,
            says,
            "https://www.gnu.org/software/stow/manual/stow.html",
            suite=suite,
        )
        for of, own, verdict, says, suite in (
            ("", ":", "pass", (), "bookworm"),
            ("_of_debian_11", ":", "pass", (), "bullseye"),
            ("_of_a_user", "chown ollama /opt/site", "refused", (DROP_INS, "/opt/site", "chown root"), "bookworm"),
        )
    ),
    Found(
        "directory_of_units_is_a_link",
        f"mv {UNITS} /opt/units; ln -s /opt/units {UNITS}; {drop_in('Environment=OLLAMA_DEBUG=1')}; {RELOAD}",
        "pass",
        (),
        UNIT_PAGE,
    ),
    Found(
        "drop_in_for_all_services_wins",
        f"{drop_in(f'Environment={PARALLEL_1}', name='zzz-site.conf', directory=f'{UNITS}/service.d')}; {RELOAD}",
        "refused",
        (f"{UNITS}/service.d/zzz-site.conf", PARALLEL_1, TAKE_OUT),
        UNIT_PAGE,
    ),
    Found(
        "drop_in_of_systemctl_edit_runtime_wins",
        drop_in(f"Environment={PARALLEL_1}", name="zzz.conf", directory="/run/systemd/system/ollama.service.d")
        + f"; {RELOAD}",
        "refused",
        ("/run/systemd/system/ollama.service.d/zzz.conf", PARALLEL_1, TAKE_OUT),
        UNIT_PAGE,
    ),
    Found(
        "manager_has_a_default_environment",
        f"printf '[Manager]\\nDefaultEnvironment={PARALLEL_1}\\n' > /etc/systemd/system.conf; {RELOAD}",
        "pass",
        (),
        EXEC_PAGE,
    ),
    Found(
        "unset_environment_takes_it_away",
        f"{drop_in('UnsetEnvironment=OLLAMA_NUM_PARALLEL')}; {RELOAD}",
        "refused",
        ("takes OLLAMA_NUM_PARALLEL away", "take the UnsetEnvironment= out"),
        EXEC_PAGE,
    ),
    Found(
        "owner_has_edited_the_unit_and_not_reloaded",
        f"{drop_in('Environment=OLLAMA_KEEP_ALIVE=1h')}",
        "pass",
        (),
        "ollama/ollama#4771",
    ),
    # --- units that systemd stops and restarts along with these -------------------------------------------------------
    Found(
        "other_units_restart_along",
        f"{ALONG}; {going_along(of_backend='PartOf=selo-backend.service', second='PartOf=site-part.service')}",
        "pass",
        (
            "restarting ollama.service also restarts",
            "site-needs.service (Requires=ollama.service)",
            "site-part.service (PartOf=ollama.service)",
            "site-second.service (PartOf=site-part.service)",
            "restarting selo-backend.service also restarts site-of-backend.service (PartOf=selo-backend.service)",
        ),
        UNIT_PAGE,
        backend="guide",
    ),
    Found(
        "other_units_stop_with_a_start_that_fails",
        f"{ALONG}; "
        + drop_in(
            'ExecStartPre=/bin/sh -c \\047test -z "$OLLAMA_CONTEXT_LENGTH"\\047',
            "Restart=no",
            name="20-check.conf",
        )
        + f"; {RELOAD}",
        "rolled_back",
        ("systemctl restart: Job for ollama.service failed", "is back"),
        UNIT_PAGE,
    ),
    Found(
        "another_unit_does_not_restart_along",
        f"{ALONG}; printf '%s\\n' 'ExecStartPre=/bin/mkdir /run/only-once' >> {UNITS}/site-part.service; "
        f"{RELOAD}; systemctl restart site-part",
        "fail",
        ("site-part.service ran before and has PartOf=ollama.service, but is not back",),
        UNIT_PAGE,
    ),
    Found(
        "containers_use_the_gpu",
        "touch /dev/nvidia0\nsystemd-run --quiet --scope --unit=docker-$(printf %064d 7).scope "
        "bash -c 'exec 3</dev/nvidia0; exec sleep 900' </dev/null >/dev/null 2>&1 &\nsleep 1",
        "pass",
        ("docker 000000000000 uses the GPU here", "native.cgroupdriver=cgroupfs", "1227"),
        "NVIDIA/nvidia-container-toolkit#48",
    ),
    # --- what a start needs -------------------------------------------------------------------------------------------
    Found(
        "working_directory_of_the_backend_is_gone",
        f"{drop_in('WorkingDirectory=/srv/chat', directory=f'{UNITS}/selo-backend.service.d')}; {RELOAD}",
        "refused",
        ("selo-backend.service names WorkingDirectory=/srv/chat, which is not there", "put it back"),
        EXEC_PAGE,
        backend="guide",
    ),
    Found(
        "user_groups_and_program_of_ollama_are_gone",
        f"{drop_in('User=llm', 'SupplementaryGroups=render-gpu', 'ExecStart=', 'ExecStart=/opt/ollama serve')}; "
        f"{RELOAD}",
        "refused",
        ("User=llm, which is not there", "groupadd --system render-gpu", "ExecStart=/opt/ollama, which is not there"),
        EXEC_PAGE,
    ),
    Found(
        "unit_of_ollama_was_renamed",
        f"systemctl disable --quiet --now ollama; mv {UNITS}/ollama.service {UNITS}/llm.service; {RELOAD}; "
        "systemctl start llm\n"
        "until curl --silent --fail --output /dev/null http://127.0.0.1:11434/; do sleep 0.5; done",
        "refused",
        (
            "ollama.service is not-found on this host; at",
            "the unit llm.service answers: set gpu_memory_ollama.unit=llm",
        ),
        "ollama/ollama#707",
    ),
]
