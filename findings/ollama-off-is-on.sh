#!/usr/bin/env bash
# Ollama 0.32.15 (Go module github.com/ollama/ollama): a switch that is set to a word it cannot parse is on.
# OLLAMA_FLASH_ATTENTION=off, =no and =disabled switch flash attention on, without a line in the log; only what Go's
# strconv.ParseBool knows (0, f, false, ...) is off. A number that cannot be parsed is the default, with a warning.
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
	for _, value := range []string{"1", "on", "off", "no", "disabled", "false", "0"} {
		os.Setenv("OLLAMA_FLASH_ATTENTION", value)
		fmt.Printf("OLLAMA_FLASH_ATTENTION=%s: %v\n", value, envconfig.FlashAttention(false))
	}
	os.Setenv("OLLAMA_CONTEXT_LENGTH", "8k")
	fmt.Printf("OLLAMA_CONTEXT_LENGTH=8k: %v\n", envconfig.ContextLength())
}
END
cat >expected <<'END'
OLLAMA_FLASH_ATTENTION=1: true
OLLAMA_FLASH_ATTENTION=on: true
OLLAMA_FLASH_ATTENTION=off: true
OLLAMA_FLASH_ATTENTION=no: true
OLLAMA_FLASH_ATTENTION=disabled: true
OLLAMA_FLASH_ATTENTION=false: false
OLLAMA_FLASH_ATTENTION=0: false
OLLAMA_CONTEXT_LENGTH=8k: 0
END
go run . >seen 2>log
cat seen
diff expected seen
[ "$(grep -c 'invalid environment variable' log)" = 1 ]  # of the number; none of the switches
