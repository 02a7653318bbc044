#!/bin/bash
# In a container: starts one of Debian's llama.cpp programs for each line (LAST<tab>PROGRAM ARGUMENTS), on so many devices
# as it was given ($1), until it ends or says a line that the expression LAST finds; `end` follows what each said.
cpu="/usr/libexec/$(uname -m)-linux-gnu/llama/bin/ggml-rpc-server"
devices=()
for port in $(seq 50051 $((50050 + $1))); do
  "$cpu" --device CPU --port "$port" > /dev/null 2>&1 &
  until (: > "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do sleep 0.05; done
  devices+=("127.0.0.1:$port")
done
export LLAMA_ARG_RPC=${devices[*]}
LLAMA_ARG_RPC=${LLAMA_ARG_RPC// /,}
while IFS=$'\t' read -r last asked; do
  read -r -a command <<< "$asked"
  exec 3< <(exec "${command[@]}" 2>&1)
  pid=$!
  while IFS= read -t 60 -r line <&3; do
    printf '%s\n' "$line"
    [[ ! $line =~ $last ]] || break
  done
  kill -9 "$pid" 2> /dev/null
  exec 3<&-
  printf 'end\n'
done
