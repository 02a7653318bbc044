#!/usr/bin/env bash
# Ollama 0.32.15 (Go module github.com/ollama/ollama): a scheme in OLLAMA_HOST moves the port that the server listens on.
# Its default port is 11434, but `http://0.0.0.0`, which looks like the same address written in full, listens on port 80,
# and `https://` on 443, though it serves no TLS. A port that is out of range is 11434 again, with a warning only.
set -euo pipefail
temp=$(mktemp -d)
trap 'chmod -R u+w "$temp" && rm -r "$temp"' EXIT
cd "$temp"
export GOPATH=$temp/go GOFLAGS=-mod=mod

cat >go.mod <<'END'
module finding
go 1.24
require github.com/ollama/ollama v0.32.15
END
cat >main.go <<'END'
package main

import (
	"fmt"
	"os"

	"github.com/ollama/ollama/envconfig"
)

func main() {
	for _, value := range []string{"0.0.0.0", "http://0.0.0.0", "https://0.0.0.0", "http://0.0.0.0:11434", "0.0.0.0:99999"} {
		os.Setenv("OLLAMA_HOST", value)
		fmt.Printf("OLLAMA_HOST=%s: %s\n", value, envconfig.Host().Host)
	}
}
END
cat >expected <<'END'
OLLAMA_HOST=0.0.0.0: 0.0.0.0:11434
OLLAMA_HOST=http://0.0.0.0: 0.0.0.0:80
OLLAMA_HOST=https://0.0.0.0: 0.0.0.0:443
OLLAMA_HOST=http://0.0.0.0:11434: 0.0.0.0:11434
OLLAMA_HOST=0.0.0.0:99999: 0.0.0.0:11434
END
go run . >seen 2>log
cat seen
diff expected seen
grep -q 'invalid port, using default' log
