"""The environment in unit files, held against systemd's own reading of them where it is installed."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script, unit_text
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), max_size=12) | st.text(
    "ab \"'\\$`#;%{}=\u2028é", max_size=8
)


def test_the_drop_in_is_canonical() -> None:
    assert unit_text.render_dropin({"B": "1", "A": 'x "y" \\ 50% $z'}) == (
        f'{unit_text.HEADER}\n[Service]\nEnvironment="B=1"\nEnvironment="A=x \\"y\\" \\\\ 50%% $z"\n'
    )
    assert unit_text.render_dropin({}) == f"{unit_text.HEADER}\n[Service]\n"


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_is_rendered_is_read_back_and_adds_no_line(environment: dict[str, str]) -> None:
    text = unit_text.render_dropin(environment)
    assert text.count("\n") == 2 + len(environment)
    assert unit_text.parse_environment_directives(text) == environment


@pytest.mark.parametrize("value", ["a\nExecStart=/bin/sh", "a\rb", "\0", "\x1b[0m", "a\tb", "\x85", "\udcff", "\ufffe"])
def test_a_value_that_could_do_more_than_be_a_value_is_refused(value: str) -> None:
    with pytest.raises(unit_text.InvalidEnvironment, match=r"^KEY: the character U\+"):
        unit_text.render_dropin({"KEY": value})


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\nB", 'A"', "é", "A-B"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(unit_text.InvalidEnvironment, match="no name of a variable"):
        unit_text.render_dropin({name: "1"})


# As `systemctl show` of systemd 252 printed them.
SHOW = """\
Id=ollama.service
MainPID=71
Environment="A=x y" "B=q\\"\\\\ %h \\$z \\`" "C=é'" D= "G=\\$x" J=a\u2028b "K=!" M=50% URL=http://h/?a=b "T="$'N=a\\nb'
ExecStart={ path=/bin/sleep ; argv[]=/bin/sleep 1000 ; ignore_errors=no }
DropInPaths=/etc/a.conf /etc/b.conf
Description=
"""


def test_show() -> None:
    properties = unit_text.parse_show(SHOW)
    environment = properties.pop("Environment")
    assert environment == {
        "A": "x y", "B": 'q"\\ %h $z `', "C": "é'", "D": "", "G": "$x", "J": "a\u2028b", "K": "!", "M": "50%",
        "URL": "http://h/?a=b", "T": "", "N": "a\nb",
    }  # fmt: skip
    assert properties == {
        "Id": "ollama.service",
        "MainPID": "71",
        "ExecStart": "{ path=/bin/sleep ; argv[]=/bin/sleep 1000 ; ignore_errors=no }",
        "DropInPaths": "/etc/a.conf /etc/b.conf",
        "Description": "",
    }
    assert unit_text.parse_show("Environment=\n") == {"Environment": {}}
    assert unit_text.parse_show("") == {}


DIRECTIVES = [
    ("[Service]\nEnvironment=A=1 B=2\n", {"A": "1", "B": "2"}),
    ('[Service]\nEnvironment="A=1 2" \'B=3 "\'\n', {"A": "1 2", "B": '3 "'}),
    ("[Service]\n  Environment =  A=1  \n", {"A": "1"}),
    ("[Service]\nEnvironment=A=1\nEnvironment=\nEnvironment=B=2\n", {"B": "2"}),
    ("[Service]\nEnvironment=A=1\nEnvironment=A=2\n", {"A": "2"}),
    ("[Service]\nEnvironment=A=1 \\\n# between\n  B=2\n", {"A": "1", "B": "2"}),
    ("[Unit]\nEnvironment=A=1\n[Service]\nEnvironment=B=2\n", {"B": "2"}),
    ("[Service]\n#Environment=A=1\n;Environment=A=1\n", {}),
    ("[Service]\nEnvironment=A=50%% B=%h\n", {"A": "50%", "B": "%h"}),
    ('[Service]\nEnvironment="A=\\x41\\t\\"\\101" B=\\s\n', {"A": 'A\t"A', "B": " "}),
    ("[Service]\nEnvironment=A=1 B=\\q C=3\n", {"A": "1"}),  # systemd ignores the rest of the line
    ("[Service]\nEnvironment=A=1 noise 1B=2\n", {"A": "1"}),
    ("[Service]\r\nEnvironment=A=1\r\n", {"A": "1"}),
    ("Environment=A=1", {}),
    ("", {}),
]


@pytest.mark.parametrize(("text", "environment"), DIRECTIVES)
def test_directives(text: str, environment: dict[str, str]) -> None:
    assert unit_text.parse_environment_directives(text) == environment


SERVICES = {
    "an empty assignment takes back what was said before": (
        "[Service]\nEnvironment=A=1\nEnvironment=\nEnvironment=B=2\n", {"B": "2"}, True, [],
    ),
    "names and assignments that are unset at the end": (
        "[Service]\nUnsetEnvironment=A B=2\nUnsetEnvironment=C\n", {}, False, ["A", "B=2", "C"],
    ),
    "an empty unset takes back what was unset before": (
        "[Service]\nUnsetEnvironment=A\nUnsetEnvironment=\n", {}, False, [],
    ),
    "other sections do not count": ("[Unit]\nUnsetEnvironment=A\nEnvironment=B=2\n", {}, False, []),
    "a last line that goes on": ("[Service]\nEnvironment=A=1 \\\n", {"A": "1"}, False, []),
    "a quote that is not closed": ('[Service]\nEnvironment="A=1\n', {}, False, []),
}  # fmt: skip


@pytest.mark.parametrize(("text", "environment", "resets", "unsets"), SERVICES.values(), ids=SERVICES)
def test_what_a_file_does_to_its_services_environment(
    text: str, environment: dict[str, str], resets: bool, unsets: list[str]
) -> None:
    found = unit_text.parse_service(text)
    assert found == {"environment": environment, "resets": resets, "unsets": unsets}


@pytest.mark.parametrize(
    ("text", "writer"),
    [
        (unit_text.render_dropin({"A": "1"}), None),
        (unit_text.render_dropin({}, "the role ollama"), "the role ollama"),
        ("[Service]\nEnvironment=A=1\n", unit_text.SOMEBODY),
        ("", unit_text.SOMEBODY),
        (f"{unit_text.HEADER}\n", None),
        (f"{unit_text.HEADER}\n# Written by \x1b[31m\n", unit_text.SOMEBODY),
    ],
)
def test_who_has_written_a_drop_in(text: str, writer: str | None) -> None:
    assert unit_text.writer_of(text) == writer


def test_what_a_drop_in_sets_is_named_without_values() -> None:
    text = "[Unit]\nAfter=x\n[Service]\nEnvironment=A=1 B=2\n# C=3\nLimitNOFILE=1 \\\n2\nEnvironment=D=4\n"
    assert unit_text.directives(text) == ["A", "B", "D", "After=", "LimitNOFILE="]


OURS = f'{unit_text.HEADER}\n[Service]\nEnvironment="A=1"\n'
ADDED = {
    "nothing": (OURS, ""),
    "a value of ours, quoted otherwise": (OURS.replace('"', ""), ""),
    "another value, as we write it": (OURS.replace("A=1", "A=2"), ""),
    "a variable": (f"{OURS}Environment=B=2\n", "[Service]\nEnvironment=B=2\n"),
    "a variable beside ours": (f'{OURS}Environment="A=1" B=2\n', '[Service]\nEnvironment="A=1" B=2\n'),
    "a line that goes on": (f"{OURS}Environment=A=1 \\\nB=2\n", "[Service]\nEnvironment=A=1 \\\nB=2\n"),
    "a comment": (f"{OURS}# A=1\n", "[Service]\n# A=1\n"),
    "a section behind": (f"{OURS}\n[Unit]\nAfter=x.mount\n", "[Unit]\nAfter=x.mount\n"),
    "a section before": (
        OURS.replace("[Service]", "[Unit]\nAfter=x.mount\n[Service]\nNice=1"),
        "[Unit]\nAfter=x.mount\n[Service]\nNice=1\n",
    ),
    "an empty section": (f"{OURS}[Unit]\n", ""),
}


@pytest.mark.parametrize(("text", "added"), ADDED.values(), ids=ADDED)
def test_what_somebody_has_added_to_our_drop_in(text: str, added: str) -> None:
    assert unit_text.added(text, {"A"}) == added
    assert unit_text.added(OURS + added, {"A"}) == added


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ('Environment="B=2"', []),
        ("Environment=B=2", []),
        ('Environment="A=2"', []),
        ("Environment=A=2", []),
        ('Environment="C=3"', ["C"]),
        ("LimitNOFILE=1", ["LimitNOFILE="]),
    ],
)
def test_what_we_have_not_set_is_foreign(line: str, names: list[str]) -> None:
    assert unit_text.foreign(f"{OURS}{line}\n", {"A", "B"}) == names


SHOWN = {
    "ours": ('Environment="A=secret%%1"', 'Environment="A=secret%%1"'),
    "ordinary": ("Environment=OLLAMA_KEEP_ALIVE=24h", 'Environment="OLLAMA_KEEP_ALIVE=24h"'),
    "one of two": ('Environment="B=old" HF_TOKEN=hf_s3cret', 'Environment="B=old" HF_TOKEN=********'),
    "what follows a quote that is not closed": ('Environment=B=old "C=s3cret', 'Environment="B=old"'),
    "a directive": ("LimitNOFILE=65536", "LimitNOFILE=65536"),
    "a command": ("ExecStartPre=/bin/login --token s3cret", "ExecStartPre=********"),
    "a comment": ("# s3cret=1", "********"),
}


@pytest.mark.parametrize(("line", "shown"), SHOWN.values(), ids=SHOWN)
def test_a_setting_is_shown_unless_it_may_be_a_secret(line: str, shown: str) -> None:
    assert unit_text.masked(f"[Service]\n{line}\n", {"A"}) == f"[Service]\n{shown}\n"


def test_the_writer_of_a_drop_in_is_no_secret() -> None:
    text = unit_text.render_dropin({"A": "1"}, "the role ollama")
    assert unit_text.masked(text, ["A"]) == text
    assert unit_text.masked("# Written by \x1b[31m\n", []) == f"{unit_text.MASK}\n"


PRE = "ExecStartPre={ path=/opt/{} ; argv[]=/opt/{} --token=x{} ; ignore_errors=no ; start_time=[n/a] }\n"


def test_of_several_commands_of_a_unit_each_counts() -> None:
    shown = unit_text.parse_show("".join(PRE.replace("{}", name) for name in ("a", "b", "c")) + "Id=x.service\n")
    assert start_script.started(shown["ExecStartPre"]) == ["/opt/a", "/opt/b", "/opt/c"]
    assert start_script.programs(shown["ExecStartPre"]) == ["/opt/a", "/opt/b", "/opt/c"]
    assert len(start_script.command_lines(shown["ExecStartPre"])) == 3
    assert start_script.of_exec_start(shown["ExecStartPre"].replace("--token=xc", "")).sets == {}


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ("/etc/systemd/system/ollama.service", "Service"),
        ("/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf", "Service"),
        ("/etc/containers/systemd/ollama.container", "Container"),
        ("/etc/containers/systemd/ollama.container.d/zz-gpu-memory.conf", "Container"),
        ("/etc/containers/systemd/container.d/a.conf", "Container"),
        ("/etc/containers/systemd/mycontainer.d/a.conf", "Service"),
    ],
)
def test_the_section_of_a_file(path: str, section: str) -> None:
    assert unit_text.section_of(path) == section


def test_an_env_file_of_a_service_of_compose() -> None:
    assert unit_text.section_of("/srv/llm/gpu-memory.env") == unit_text.NO_SECTION
    values = {
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_KEEP_ALIVE": "",
        "A": 'a "$b" #c',
        "CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2",
    }
    text = unit_text.render_dropin(values, "a task", unit_text.NO_SECTION)
    assert text == (
        f"{unit_text.HEADER}\n# Written by a task\nOLLAMA_NUM_PARALLEL=2\nOLLAMA_KEEP_ALIVE=\nA='a \"$b\" #c'\n"
        "CUDA_VISIBLE_DEVICES=GPU-1,GPU-2\n"
    )
    assert unit_text.parse_service(text, unit_text.NO_SECTION) == {"environment": values, "resets": False, "unsets": []}
    assert unit_text.writer_of(text) == "a task"
    with pytest.raises(unit_text.InvalidEnvironment, match="carries no '"):
        unit_text.render_dropin({"A": "it's"}, section=unit_text.NO_SECTION)


def test_what_somebody_has_added_to_an_env_file_of_ours() -> None:
    ours = unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}, section=unit_text.NO_SECTION)
    text = f"{ours}OLLAMA_ORIGINS=*\n# mine\nexport B=c\nTOKEN=hunter2\n"
    own = ["OLLAMA_NUM_PARALLEL"]
    assert unit_text.added(text, own) == "OLLAMA_ORIGINS=*\n# mine\nexport B=c\nTOKEN=hunter2\n"
    assert unit_text.foreign(text, own, unit_text.NO_SECTION) == ["OLLAMA_ORIGINS", "TOKEN", "export B="]
    assert unit_text.foreign(ours, own, unit_text.NO_SECTION) == []
    assert unit_text.as_we_write(text, own, unit_text.NO_SECTION) == own
    masked = unit_text.masked(text, own)
    assert "OLLAMA_NUM_PARALLEL=2" in masked and "hunter2" not in masked
