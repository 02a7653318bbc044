"""Names and shapes as they are met on hosts: what is a secret, and what must stay readable."""

from __future__ import annotations

import re

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import credentials, masking
from hypothesis import given
from hypothesis import strategies as st

GPU = "GPU-38079876-a1c8-5fa0-92ea-8efc513d7869"
DIGEST = "6a0746a1ec1aef3e7ec53868f220ff6e389f6f8ef87a01d77c96807de94ca2aa"

# A variable with its value, and what of it a program prints; `|` between several.
SECRETS = r"""
DB_PASS=tigr
SMTP_PASS=83471290
MYSQL_PASS=/vault/hunter9
MODEL_STORE_PASS=hunterhunter
DBPASS=xyzw
PGPASSWORD=1.2.3.4
DB_PWD=1.2.3.4
ADMIN_PIN=7319
CARD_PINS=7319,8420 -> 7319,8420
OPENAI_KEY=1234567
OPENAIKEY=abcd
ENCRYPTION_KEY=12345678901
MODEL_HUB_KEY=kittenkitten
API_KEYS=alphaone,betatwo -> betatwo
X_API_KEY=ab-cd
WEBUI_SECRET_KEY=t0p-s3
KEY_PORT=hunter2
REDIS_AUTH=/Zq9xPl
BASIC_AUTH=bob:hunter2 -> hunter2
OLLAMA_AUTH=swordfishes
OTP_SEED=998877
WALLET_MNEMONIC=legal winner thank year
PASSCODE=0815
ACCESS_CODE=4711
HF_TOKENS=/aaa1
HF_TOKEN=hf_ab
MODEL_TOKEN=hunter2x
TOKENS_OF_CI=abcd1,abcd2
DEPLOY_TOKEN_PORT=/Xy+abc
LC_SECRET=lcsecretvalue
LANG_PASSWORD=abcdefg
PASSWORD_HOST=/s3cr3t
PASSWORD_FILE=/hunter2
TOKEN_DIR=hunter2
SECRET_URL=hunter2-plain
JWT=/abc.def
JWT_SIGNING=eyJhbGciOiJIUzI1NiJ9.e30.abc
SESSION_COOKIE=abcdef
PASSWORD_SALT=pepper
CREDS=alice:wonder -> wonder
LICENSE=XK-42
MODELS_LICENSE=kittenkit
SSH_PASSPHRASE=multi word secret
SLACK_WEBHOOK=https://hooks.slack.example/services/T0/B0/abcdef -> https://hooks.slack.example/services/T0/B0/abcdef
SENTRY_DSN=https://public@sentry.example/1 -> public
HTTPS_PROXY=kitty:kittens5@proxy.example:3128 -> kittens5
http_proxy=http://kitty:kittens5@proxy.example:3128 -> kittens5
ALL_PROXY=socks5://kitty:kit%40ens5@proxy.example:1080 -> kit@ens5
GIT_REMOTE=https://ghx-abcdefgh@git.example/a.git -> ghx-abcdefgh
DATABASE_URL=postgres://u@h/db?password=sesame -> sesame
DATABASE_URL=postgres://u:pa/ss@h/db -> pa/ss
AMQP=amqp://guest:guest-pw@h// -> guest-pw
OLLAMA_HOST=http://u:p4ss@h:1 -> p4ss
PG=user=a password=s3sa host=x -> s3sa
PG=host=x password='two words' user=a -> two words
ODBC=Driver={PG};Server=x;Pwd=hun ter;Database=y -> hun ter
ODBC=Server=x;PWD={a bcd} -> a bcd
JSON={"password": 12345678} -> 12345678
JSON={"db": [{"pass": "tigr", "n": 3}]} -> tigr
JSON={"token":"ab\"cd"} -> ab"cd
JSON={"apiKey": "two words"} -> two words
JSON=["redis://:hunter2@h/0"] -> hunter2
KUBECONFIG_DATA=aGVsbG8gd29ybGQ=
VENDOR_THING=plainscriptword
FROM_VAULT=/Zq9xPlmn
NUMBER_ONLY=83471290
GREETING=open sesame
VAULT_ROLE_ID=3c1e-44
MODEL_ACCESS=hunterword
ACCESS_OF_MODELS_TO=hunterword
PASSWORD=memory
API_TOKEN=llama3
DB_PASS=pass
REVIEW_KEY=inconclusive
TOPIC=memory of hunterword
QUOTED="hunter2"
MULTI=first line of it\nsecond line of it -> second line of it
""".strip().splitlines()

ORDINARY = f"""
OLLAMA_NUM_PARALLEL=2
OLLAMA_CONTEXT_LENGTH=131072
OLLAMA_KV_CACHE_TYPE=q8_0
OLLAMA_KEEP_ALIVE=24h0m0s
OLLAMA_HOST=0.0.0.0:11434
OLLAMA_HOST=gpu01.lan.example:11434
OLLAMA_ORIGINS=http://127.0.0.1:3000
OLLAMA_MODELS=/data/ollama/models
LLAMA_ARG_FIT_TARGET=1024,2048
CUDA_VISIBLE_DEVICES={GPU}
NVIDIA_DEVICES={GPU}
CHAT_NUM_CTX=131072
CHAT_MODEL=llama3.1:8b-instruct-q4_K_M
EMBEDDING_MODEL=nomic-embed-text
MODEL_DIGEST=sha256:{DIGEST}
IMAGE=sha256-{DIGEST}
BASE_URL=http://127.0.0.1:11434
LISTEN_HOST=gpu01
SERVER_PORT=114340
LOG_DIR=/logs/selo
LOG_LEVEL=warning
LOG_FORMAT=logfmt
APP_ENV=production
STAGE=staging
DATA=/var/lib/selo
ARCHIVE=~/archive/x
RELATIVE=../models/x
LC_ALL=en_US.UTF-8
LANG=C.UTF-8
LANGUAGE=en_US:en
PATH=/usr/local/bin:/usr/bin
EXTRA=/usr/lib/a:/opt/b
PYTHONPATH=/opt/selo
HOME=/usr/share/ollama
USER=ollama
DB_USER=selo_admin
DB_NAME=selo-main
SERVICE_NAME=ollama
INVOCATION_ID=0123456789abcdef
TORCH_DEVICE=cuda:0
DTYPE=bfloat16
ARCH=x86_64
NVIDIA_REQUIRE=16384 MiB
EXIT_CODE=exited
SERVICE_RESULT=exit-code
CUDA_VERSION=12.4.131
RELEASE=v0.32.15
BUDGET=16384MiB
IDLE=1h30m
WEBUI_AUTH=false
SHOW_TOKEN=true
LICENSE=none
API_TOKEN_FILE=/run/secrets/token
TLS_KEY_FILE=/etc/ssl/key.pem
CREDENTIALS_DIRECTORY=/run/credentials/ollama.service
TOKEN_TTL=86400
MAX_TOKENS=131072
NUM_TOKENS=8192
SEED=4294967
TOKENIZERS_PARALLELISM=only
AUTH_HOST=auth.lan.example:8443
ADMIN_PIN=731
LEVEL=info
TOPIC=memory
TOPIC=Out of memory
TOPIC=cudaMalloc failed
ANSWER=inconclusive
STATE_OF_IT=rolled_back
CARD=NVIDIA GeForce RTX 4060 Ti
CARD=RTX 4060 Ti
LLM=llama3.1:8b-instruct-q8_0
LLM=library/gemma3:270m
MODEL_DEFAULT=nomic-embed-text
EMBEDDING_MODEL_ID=BAAI/bge-m3
eos_token=128009
BOS_TOKEN=128000
EOS_TOKEN_ID=128009
PAD_TOKEN_ID=-1
""".strip().splitlines()

LOOKS = r"""
curl -u bob:hunter2 http://x/ -> hunter2
curl -ubob:hunter2 http://x/ -> hunter2
curl --user bob:hunter2 http://x/ -> hunter2
llama-server --api-key hunter2 -> hunter2
llama-server --api-key=hunter2 -> hunter2
server --vendor-key argsecret --seed 4294967295 -> argsecret
exec ["server", "--api-key", "hunter2"] -> hunter2
download with hf_AbCdEfGhIjKlMnOp -> hf_AbCdEfGhIjKlMnOp
download with sk-proj-abc_def-ghijklmnop -> sk-proj-abc_def-ghijklmnop
push as ghp_AbCdEfGhIjKlMnOpQr -> ghp_AbCdEfGhIjKlMnOpQr
slack xoxb-abcdefghijkl -> xoxb-abcdefghijkl
DB_PASS=tigr -> tigr
ADMIN_PIN=7319 -> 7319
HF_TOKENS=/aaa1 -> /aaa1
{"password": "two \"quoted\" words", "n": 1} -> words
{\"password\":\"two words\"} -> words
password='two words' -> words
password="cut off in the middle -> middle
Authorization: Token abcd -> abcd
login as bob, pass: tigr -> tigr
user=bob pass=x7 -> x7
{"user": "bob", "pass": "two words"} -> words
sshpass -p tigr ssh bob@h -> tigr
docker login -u bob -p 'two words' registry.example -> words
docker login -u bob -p "two words -> words
eos_token=hf_ab -> hf_ab
Authorization: Bearer abcd -> abcd
X-Api-Key: ab -> ab
proxy kitty:kittens5@proxy.example:3128 refused -> kittens5
proxy http://kitty:kit@ens5@proxy.example:3128 refused -> ens5
http://h/p?a=b&c=d -> c=d
postgres://u:pa/ss@h/db -> pa/ss
/etc/systemd/system/x.service.d/a.conf:4: Invalid environment assignment, ignoring: lintsecretword -> lintsecretword
/etc/systemd/system/x.service:4: Failed to resolve unit specifiers in 'A=lintsecretword', ignoring: No -> lintsecretword
/etc/systemd/system/x.service:4: Unknown key name 'lint-secret-word' in section 'Service', ignoring. -> lint-secret-word
/etc/systemd/system/x.service:4: Ignoring unknown escape sequences: "A=lint\qsecret" -> secret
Ignoring invalid environment assignment 'lintsecretword': /etc/default/ollama -> lintsecretword
""".strip().splitlines()

READABLE = f"""
/etc/systemd/system/x.service:4: Unknown key name 'Enviroment' in section 'Service', ignoring.
time=2026-11-26T11:55:15.123Z level=WARN source=types.go:753 msg="invalid option provided" option=num_gqa
level=INFO source=gguf.go:9 msg="key with type not found" key=tokenizer.ggml.pre default=0
level=INFO msg="server config" env="map[OLLAMA_NUM_PARALLEL:2 OLLAMA_KEEP_ALIVE:24h0m0s]"
ollama.service: Main process exited, code=exited, status=1/FAILURE
llama-server -m /m/blobs/sha256-{DIGEST} --seed 4294967295 --top-k 40 --max-tokens 4096
model registry.ollama.ai/library/llama3.1:8b@sha256:{DIGEST} is gone
GPU {GPU}: 15580 MiB of 16380 MiB; tokens=512, n_tokens: 4096, token count 5, 33 tokens per second
docker run -u 1000:1000 ollama/ollama:0.32.15 serve
dial tcp [::1]:11434: connect: connection refused; see http://127.0.0.1:11434/api/tags
tokenizer.ggml.tokens arr[str,128256]; special tokens cache size = 256; pass=2, exit code: 137
API_TOKEN_FILE=/run/secrets/token is not readable
print_info: EOS token        = 128009 '<|eot_id|>', eos_token=128009, "bos_token_id": 128000
docker run -p 11434:11434 -p 127.0.0.1:80:80/tcp -p 53:53/udp ollama/ollama; ssh -p 22 h; mkdir -p /srv/x ./y ~/z
ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected
""".strip().splitlines()


def pair(row: str) -> tuple[str, str]:
    """What is on the left and what must be masked, of a row; without an arrow that is the value."""
    left, arrow, right = row.partition(" -> ")
    return left, right if arrow else left.partition("=")[2]


@pytest.mark.parametrize("row", SECRETS)
def test_the_value_of_a_variable_is_a_secret_unless_it_is_known_to_be_ordinary(row: str) -> None:
    variable, secret = pair(row)
    name, _equals, value = variable.replace(r"\n", "\n").partition("=")
    known = masking.secrets_in({name: value})
    assert secret not in masking.without_secrets(f"cannot use {secret} now", known)
    assert secret not in masking.without_secrets(f"cannot use {value} now", known)


@pytest.mark.parametrize("row", ORDINARY)
def test_what_is_ordinary_stays_readable(row: str) -> None:
    name, _equals, value = row.partition("=")
    assert masking.secrets_in({name: value}) == set()


@pytest.mark.parametrize("row", LOOKS)
def test_what_looks_like_a_secret_is_masked_where_nothing_is_known(row: str) -> None:
    text, secret = pair(row)
    assert secret in text
    shown = masking.without_secrets(text)
    assert secret not in shown
    assert masking.MASK in shown


@pytest.mark.parametrize("text", READABLE)
def test_lines_that_hold_no_secret_stay_as_they_are(text: str) -> None:
    assert masking.without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("export VENDOR_THING='plainscriptword'\nexec ollama serve", {"plainscriptword"}),
        ('set -a; VENDOR="plain \\" word"; name=ollamas', {'plain \\" word'}),
        ("A_B=$OTHER_THING; C=`cat /etc/secret`; D=$(cat x)", set()),
        ('sh -c "sh -c \'server --vendor-key argsecretword\'"', {"argsecretword"}),
        ("{ path=/usr/bin/env ; argv[]=/usr/bin/env VENDOR=thingthing server --api-key=hunter2 ; pid=0 }",
         {"thingthing", "hunter2"}),
        ("python3 -u main:app; docker run -u ollama:ollama -p 11434:11434", set()),
        ("server --auth-file /etc/server/auth --port 114340 --seed 4294967295", set()),
        ("sshpass -p tigr ssh -p 22 h", {"tigr"}),
        ("docker run -p some-port:80; mkdir -p some/where", set()),
        ("curl -u bob:hunter2 https://kitty:kittens5@h/", {"hunter2", "bob:hunter2", "kittens5"}),
    ],
)  # fmt: skip
def test_a_script_and_a_command_line_tell_what_must_not_be_shown(text: str, secrets: set[str]) -> None:
    found = masking.secrets_in_script(text)
    assert found >= secrets
    assert bool(found) == bool(secrets)


def test_a_part_of_a_secret_that_is_ordinary_stays_readable() -> None:
    known = masking.secrets_in({"ORIGINS_ALLOWED": '["http://localhost:3000", "http://u:hunter2@localhost"]'})
    shown = masking.without_secrets("http://localhost:3000 and hunter2", known)
    assert shown == f"http://localhost:3000 and {masking.MASK}"


LINE = "my-ollama.service: llama3.1:8b on NVIDIA GeForce RTX 4060 Ti: cudaMalloc failed: out of memory"


@pytest.mark.parametrize(
    "variable", ["TOPIC=memory", "LLM=llama3.1:8b", "VENDOR=my-ollama", "UNIT_OF=my-ollama.service"]
)
def test_a_word_that_is_needed_stays_readable_though_a_variable_holds_it(variable: str) -> None:
    name, _equals, value = variable.partition("=")
    known = masking.secrets_in({name: value}, ["my-ollama.service", "llama3.1:8b"])
    assert masking.without_secrets(LINE, known) == LINE


@pytest.mark.parametrize("value", ["memory", "my-ollama", "llama3.1:8b", "failed"])
def test_a_credential_by_its_name_is_masked_even_if_it_is_such_a_word(value: str) -> None:
    known = masking.secrets_in({"PASSWORD": value}, ["my-ollama.service", "llama3.1:8b"])
    assert masking.without_secrets(LINE, known) == LINE.replace(value, masking.MASK)


def test_what_is_commented_out_is_a_secret_as_well() -> None:
    lines = ["A=1", "# don't use:", "#OPENAI_API_KEY=sk-old", "  ## export VENDOR='old-vendor-word'"]
    lines += ["# the old one was hunterword", "B=2 # or hunterword2", "# memory", ""]
    known = masking.secrets_in_text("\n".join(lines))
    for secret in ("sk-old", "old-vendor-word"):
        assert masking.without_secrets(f"cannot use {secret} now", known) == f"cannot use {masking.MASK} now"
    for line in ("# the old one was hunterword", "B=2 # or hunterword2"):
        assert "hunterword" not in masking.without_secrets(f"say: {line}", known)
    assert masking.without_secrets("out of memory", known) == "out of memory"


def test_a_value_that_is_cut_off_is_masked() -> None:
    known = masking.secrets_in({"VENDOR": "plain-script-word", "GREETING": 'open "sesame" now'})
    mask = masking.MASK
    for said, shown in {
        "cannot use plain-scr…; start it": f"cannot use {mask}…; start it",
        "cannot use plain-": f"cannot use {mask}",
        "cannot use plain": "cannot use plain",  # as anybody writes it
        "plain-scripts are fine… here": "plain-scripts are fine… here",
        r'{"error": "open \"ses…': f'{{"error": "{mask}…',
    }.items():
        assert masking.without_secrets(said, known) == shown


def test_a_line_that_a_script_prints_is_no_secret_for_the_url_in_it() -> None:
    line = 'msg="invalid setting" password=hunter2 see https://u:tigr@wiki.example.net/'
    known = masking.secrets_in_script(f"echo '{line}'")
    assert line not in known and known >= {"hunter2", "tigr"}


def test_a_command_line_is_taken_word_by_word() -> None:
    words = ["sh", "-c", 'exec server --api-key "two words"', "X", "--db-pass", "tigr", "A_VALUE=some thing"]
    assert masking.secrets_in_command(words) >= {"two words", "tigr", "some thing"}


@given(st.from_regex(re.compile(credentials.PERHAPS), fullmatch=True))
def test_what_says_credential_is_found_by_the_parts_that_are_looked_for_first(name: str) -> None:
    assert any(part in name for part in credentials.PARTS)
