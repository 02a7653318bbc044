# shellcheck shell=bash
# Shared by script/test and script/test-long. The caller sets `stages`, its own name in `program`, and `run STAGE`.
# Every stage runs, also after one failed; the exit code and the last lines say how it went. What a stage prints as
# `figure: ...` is repeated there.

# Ansible has no setting that makes a deprecation an error; its log has them also of runs whose output a test keeps.
nothing_deprecated() {
  if grep --no-messages --no-filename --fixed-strings --max-count 1 --after-context 3 '[DEPRECATION WARNING]' "$@"; then
    echo "$program: something that Ansible calls deprecated was used, see above"
    return 1
  fi
}

run_stages() {
  local stage before log passed=() failed=() times=()
  script/setup test || exit
  PATH=$PWD/.venv/bin:$PATH
  # Each Python, and each worker of pytest for each file of tests, would compile anew what another has compiled.
  unset PYTHONDONTWRITEBYTECODE
  export ANSIBLE_INJECT_FACT_VARS=false ANSIBLE_DEPRECATION_WARNINGS=true
  # Scenarios lie in molecule/, in plain sight. Creating and destroying their hosts needs no inventory of them.
  export MOLECULE_GLOB='molecule/*/molecule.yml' MOLECULE_COMMAND_BORDERS=false MOLECULE_ANSIBLE_ARGS_STRICT_MODE=1
  [ -t 1 ] || export NO_COLOR=1

  [ $# != 0 ] || set -- "${stages[@]}"
  for stage; do
    if [[ " ${stages[*]} " != *" $stage "* ]]; then
      echo "$program: no stage $stage; there are: ${stages[*]}" >&2
      exit 2
    fi
  done
  log=.cache/$(basename "$program")
  rm -rf "$log"
  mkdir -p "$log"
  for stage; do
    printf '\n=== %s\n' "$stage"
    before=$SECONDS
    export ANSIBLE_LOG_PATH=$PWD/$log/$stage.ansible
    if run "$stage" 2>&1 | tee "$log/$stage" && nothing_deprecated "$log/$stage" "$ANSIBLE_LOG_PATH"; then
      passed+=("$stage")
    else
      failed+=("$stage")
    fi
    times+=("$(printf '%-14s %4d s' "$stage" $((SECONDS - before)))")
  done

  printf '\n=== %d s in all\n' "$SECONDS"
  printf '%s\n' "${times[@]}"
  for stage; do
    sed -n "s/^figure: /  $stage: /p" "$log/$stage"
  done
  [ ${#failed[@]} = 0 ] || echo "failed: ${failed[*]}"
  echo "stages: ${#passed[@]} passed, ${#failed[@]} failed"
  [ ${#failed[@]} = 0 ]
}
