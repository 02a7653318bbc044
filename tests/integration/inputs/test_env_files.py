"""Whatever an env file looks like, through a whole apply: edited with all about it kept, or refused before anything."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.inputs.real_lab import BACKEND, Host, aliases, playbook, record, records

SHAPES = "/srv/shapes"
NEW = {"CHAT_NUM_CTX": "4096", "OLLAMA_NUM_PARALLEL": "2"}

# Shapes that are edited, as Python on the host makes them: name, who reads it, and the code; `p` is the path.
EDITED = {
    "export.env": (["python-dotenv", "bash"], 'p.write_text("export CHAT_NUM_CTX=9 # mine\\nexport A=1\\n")'),
    "crlf.env": (["python-dotenv"], 'p.write_bytes(b"A=1\\r\\nCHAT_NUM_CTX=9\\r\\nB=2\\r\\n")'),
    "bom.env": (["python-dotenv"], 'p.write_bytes(b"\\xef\\xbb\\xbfA=1\\nCHAT_NUM_CTX=9\\n")'),
    "twice.env": (["python-dotenv", "bash", "systemd"], 'p.write_text("CHAT_NUM_CTX=1\\nA=1\\nCHAT_NUM_CTX=2\\n")'),
    "lines.env": (["python-dotenv", "bash"], 'p.write_text("PEM=\\"a\\nCHAT_NUM_CTX=7\\nb\\"\\nCHAT_NUM_CTX=9\\n")'),
    "unended.env": (["python-dotenv", "bash", "systemd"], 'p.write_text("A=1\\nCHAT_NUM_CTX=9")'),
    "link.env": (["python-dotenv"], 'q = p.with_name("target"); q.write_text("CHAT_NUM_CTX=9\\n"); p.symlink_to(q)'),
    "hard.env": (["python-dotenv"], 'p.write_text("CHAT_NUM_CTX=9\\n"); os.link(p, p.with_name("other"))'),
    "acl.env": (["python-dotenv"], 'p.write_text("CHAT_NUM_CTX=9\\n"); acl(p)'),
    "mode.env": (["python-dotenv"], 'p.write_text("CHAT_NUM_CTX=9\\n"); p.chmod(0o4); os.chown(p, 1234, 4321)'),
    "bytes.env": (["bash"], 'p.write_bytes(b"A=\\xff\\xfe\\nCHAT_NUM_CTX=9\\n")'),
    "docker.env": (["docker"], 'p.write_text("A=\'1\\nCHAT_NUM_CTX=9\\n")'),
    "new.env": (["python-dotenv"], "pass"),
    "mounted.env": (["python-dotenv"], 'p.write_text("CHAT_NUM_CTX=9\\n"); run(f"mount --bind {p} {p}")'),
}
# Shapes that are refused: who reads it, the code (`d` is the directory, `p` the .env in it), and what must be said.
REFUSED = {
    "immutable": (["python-dotenv"], 'p.write_text("A=1\\n"); run(f"chattr +i {p}")', ["immutable", "chattr -i"]),
    "append-only": (["python-dotenv"], 'p.write_text("A=1\\n"); run(f"chattr +a {p}")', ["append-only", "chattr"]),
    "immutable-directory": (["python-dotenv"], 'p.write_text("A=1\\n"); run(f"chattr +i {d}")', ["immutable"]),
    "read-only": (
        ["python-dotenv"],
        'p.write_text("A=1\\n"); run(f"mount --bind {d} {d} && mount -o remount,bind,ro {d}")',
        ["read-only", "mount it read-write"],
    ),
    "missing": (["python-dotenv"], "d.rmdir()", ["is missing", "create it"]),
    "directory": (["python-dotenv"], "p.mkdir()", ["no regular file", "move it away"]),
    "fifo": (["python-dotenv"], "os.mkfifo(p)", ["no regular file", "move it away"]),
    "device": (["python-dotenv"], 'p.symlink_to("/dev/null")', ["no regular file"]),
    "loop": (["python-dotenv"], 'p.symlink_to(".env")', ["loop", "take it away"]),
    "strangers-link": (
        ["python-dotenv"],
        'q = d / "q"; q.write_text("A=1\\n"); p.symlink_to(q); os.chown(p, 1234, 1234, follow_symlinks=False)',
        ["belongs to uid 1234", "chown -h root"],
    ),
    "huge": (["python-dotenv"], 'p.write_text("A=1\\n" * 1000000)', ["larger than 128 KiB"]),
    "not-utf-8": (["python-dotenv"], 'p.write_bytes(b"A=\\xff\\n")', ["not UTF-8"]),
    "nul": (["bash"], 'p.write_bytes(b"A=\\0\\n")', ["NUL byte"]),
    "open-quote": (["systemd"], 'p.write_text("A=\'1\\n")', ["line 1", "never closed"]),
    "shell-code": (["bash"], 'p.write_text("if true; then\\n")', ["line 1", "shell code"]),
    "no-docker-name": (["docker"], 'p.write_text("export A=1\\n")', ["line 1", "docker refuses"]),
}
MAKE = """
python3 - <<'END'
import os, pathlib, struct, subprocess
def run(command): subprocess.run(command, shell=True, check=True)
def acl(p):
    entries = [(1, 6, -1), (2, 4, 1234), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(p, "system.posix_acl_access", value)
%s
END
"""
# Everything about every file below a place, content by its hash.
PICTURE = f"""
find {SHAPES} /opt/refused /etc/systemd/system {BACKEND} -printf '%p %y %m %U:%G %n %l\\n' 2>/dev/null | sort
find {SHAPES} /etc/systemd/system {BACKEND} -type f -exec sha256sum {{}} + | sort -k 2
python3 -c "
import os
for name in sorted(os.listdir('{SHAPES}')):
    print(name, os.listxattr(os.path.join('{SHAPES}', name)))
"
ls /var/lib/gpu-memory/generations 2>/dev/null | wc -l
systemctl show ollama selo-backend --property=MainPID
"""


def test_every_shape_that_can_be_edited_is_and_goes_back(host: Host, tmp_path: Path) -> None:
    code = "\n".join(f"p = pathlib.Path('{SHAPES}/{name}')\n{make}" for name, (_, make) in EDITED.items())
    host.read(MAKE % f"os.makedirs('{SHAPES}')\n{code}")
    before = host.read(PICTURE)
    files = [{"path": f"{SHAPES}/{name}", "read_by": readers} for name, (readers, _) in EDITED.items()]
    backend = {"extends": "guide", "env_files": [{"path": ".env", "read_by": ["python-dotenv"]}, *files]}
    report = tmp_path / "report"
    done = playbook("apply-stable.yml", report=report, gpu_memory_backend=backend, gpu_memory_verify="never")
    assert record(report)["acted"], done.stdout[-3000:]
    texts = json.loads(
        host.read(
            "python3 -c \"import json, pathlib; print(json.dumps({p.name: p.read_bytes().decode('latin-1') "
            f"for p in pathlib.Path('{SHAPES}').iterdir()}}))\""
        )
    )
    assert texts["export.env"].startswith("export CHAT_NUM_CTX=4096 # mine\nexport A=1\n")
    assert texts["crlf.env"].startswith("A=1\r\nCHAT_NUM_CTX=4096\r\nB=2\r\nOLLAMA_GPU_LAYERS=40\r\n")
    assert texts["bom.env"].startswith("\xef\xbb\xbfA=1\nCHAT_NUM_CTX=4096\n")
    assert texts["twice.env"].startswith("CHAT_NUM_CTX=1\nA=1\nCHAT_NUM_CTX=4096\n")
    assert texts["lines.env"].startswith('PEM="a\nCHAT_NUM_CTX=7\nb"\nCHAT_NUM_CTX=4096\n')
    assert texts["unended.env"].startswith("A=1\nCHAT_NUM_CTX=4096\n")
    assert texts["target"].startswith("CHAT_NUM_CTX=4096\n") and texts["link.env"] == texts["target"]
    assert texts["hard.env"].startswith("CHAT_NUM_CTX=4096\n") and texts["hard.env"] == texts["other"]
    assert texts["bytes.env"].startswith("A=\xff\xfe\nCHAT_NUM_CTX=4096\n")
    assert texts["docker.env"].startswith("A='1\nCHAT_NUM_CTX=4096\n")
    assert not [name for name, text in texts.items() if "CHAT_NUM_CTX=4096" not in text]

    def shapes(picture: str) -> list[str]:
        """Kind, mode, owner, links and attributes of all shapes but the new one; not their content."""
        names = {*EDITED, "target", "other"} - {"new.env"}
        return [line for line in picture.splitlines() if line.partition(" ")[0].removeprefix(f"{SHAPES}/") in names]

    assert shapes(host.read(PICTURE)) == shapes(before)
    assert "system.posix_acl_access" in before
    done = playbook("playbooks/rollback.yml", report=report)
    assert done.returncode == 0, done.stdout[-3000:]

    def content(picture: str) -> list[str]:
        return [line for line in picture.splitlines() if SHAPES in line]

    assert content(host.read(PICTURE)) == content(before)


def test_every_other_shape_is_refused_before_anything_is_written(host: Host, tmp_path: Path) -> None:
    code = "\n".join(
        f"d = pathlib.Path('/opt/refused/{name}')\nd.mkdir(parents=True)\np = d / '.env'\n{make}"
        for name, (_, make, _) in REFUSED.items()
    )
    host.read(MAKE % f"os.makedirs('{SHAPES}')\n{code}")
    before = host.read(PICTURE)
    inventory = aliases(
        tmp_path,
        {
            name: {
                "gpu_memory_backend": {
                    "extends": "guide",
                    "env_files": [{"path": f"/opt/refused/{name}/.env", "read_by": readers}],
                }
            }
            for name, (readers, _, _) in REFUSED.items()
        },
    )
    report = tmp_path / "report"
    done = playbook("apply-stable.yml", report=report, inventory=inventory, gpu_memory_batches=["100%"])
    assert done.returncode != 0
    found = records(report)
    assert set(found) == set(REFUSED), done.stdout[-3000:]
    for name, (_, _, said) in REFUSED.items():
        assert found[name]["verdict"] == "refused", (name, found[name]["reasons"])
        for words in said:
            assert words in found[name]["reason"], (name, found[name]["reasons"])
    assert host.read(PICTURE) == before
    host.run("chattr -R -i -a /opt/refused; umount /opt/refused/read-only")
