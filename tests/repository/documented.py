"""The commands that README.md and docs/ show, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?:bash|console|shell|sh|text)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(
    r"(?:\$ )?((?:sudo )?(?:ansible-[a-z]+|\./script/\S+|script/\S+|gpu-memory|systemctl|journalctl)\b.*)"
)


@dataclass(frozen=True)
class Command:
    """One command line of a page, without its comment."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def commands() -> list[Command]:
    """Every command inside a fence, in the order of the pages, each line once; what goes on with a backslash is one."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for fence in FENCE.findall(path.read_text()):
            for line in fence.replace("\\\n", " ").splitlines():
                match = COMMANDS.fullmatch(line.strip())
                if match:
                    found.append(
                        Command(str(path.relative_to(ROOT)), " ".join(re.sub(r"\s+#\s.*", "", match[1]).split()))
                    )
    return list(dict.fromkeys(found))
