#!/usr/bin/env bash
# pydantic-settings 2.12.0: a variable that a program does not know is ignored in the environment, and refused in its .env.
# Whoever adds OLLAMA_NUM_PARALLEL to the .env that a service and its neighbour share stops the service at its next start
# ("Extra inputs are not permitted"); the same line in the unit's Environment= does nothing. A prefix, which ought to tell
# a program's own variables from others, changes nothing: in the file, a key that lacks it is refused too.
set -euo pipefail
temp=$(mktemp -d)
trap 'rm -r "$temp"' EXIT
cd "$temp"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pydantic-settings==2.12.0 pydantic==2.12.5
cat >backend.py <<'END'
import os

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def started(case: str, prefix: str, **variables: str) -> None:
    class Settings(BaseSettings):
        model_config = SettingsConfigDict(env_file=".env", env_prefix=prefix)
        num_ctx: int = 2048

    os.environ.update(variables)
    try:
        print(f"{case}: {Settings()}")
    except ValidationError as problem:
        print(f"{case}:", *(f"{error['loc'][0]}: {error['msg']}" for error in problem.errors()), sep=" ")
    for name in variables:
        del os.environ[name]


def write(*lines: str) -> None:
    with open(".env", "w") as file:
        file.write("\n".join(lines))


write("NUM_CTX=4096")
started("in the environment", "", OLLAMA_NUM_PARALLEL="1")
write("NUM_CTX=4096", "OLLAMA_NUM_PARALLEL=1")
started("in the file", "")
write("APP_NUM_CTX=4096", "OLLAMA_NUM_PARALLEL=1")
started("in the file, prefix APP_", "APP_")
END
cat >expected <<'END'
in the environment: num_ctx=4096
in the file: ollama_num_parallel: Extra inputs are not permitted
in the file, prefix APP_: ollama_num_parallel: Extra inputs are not permitted
END
venv/bin/python backend.py >seen
cat seen
diff expected seen
