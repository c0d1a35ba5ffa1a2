#!/usr/bin/env bash
# Starts main.py again until it is done: at once after a preemption, with growing pauses after a crash.
#
#   tpu_scripts/train_until_done.sh [--dry_run] [--max_crashes=5] [--backoff_seconds=5] -- FLAGS OF main.py
#
# Ends with main.py's status 0 (done), 2 (a mistake in the flags) and 130 (Ctrl-C); 75, 137 and 143 (SIGTERM
# or killed) start it again; so does every other status, up to max_crashes times in a row. A run of more
# than ten minutes begins a new row. SIGTERM and Ctrl-C are passed on, and nothing is started after them.
# PYTHON names the interpreter; .venv/bin/python otherwise.
set -euo pipefail
set -m # children in the background may be interrupted

dry_run=false max_crashes=5 backoff_seconds=5
while (($#)); do
  case $1 in
    --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --dry_run) dry_run=true ;;
    --max_crashes=*) max_crashes=${1#*=} ;;
    --backoff_seconds=*) backoff_seconds=${1#*=} ;;
    --) shift; break ;;
    *) echo "train_until_done.sh: unknown option $1; the flags of main.py come after --" >&2; exit 2 ;;
  esac
  shift
done
for number in "$max_crashes" "$backoff_seconds"; do
  [[ $number =~ ^[0-9]+$ ]] || { echo "train_until_done.sh: '$number' is not a whole number" >&2; exit 2; }
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command=("${PYTHON:-$root/.venv/bin/python}" "$root/main.py" "$@")
if $dry_run; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi

received='' signals=0 child=''
pass_on() {
  received=$1
  signals=$((signals + 1))
  [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null || true
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

crashes=0
while true; do
  began=$SECONDS
  "${command[@]}" &
  child=$!
  [[ -z $received ]] || pass_on "$received" # it came while the child was being started
  while true; do # a signal ends the wait, not the child, whose own status the second wait returns
    before=$signals status=0
    wait "$child" || status=$?
    ((signals > before)) || break
  done
  child=''
  if [[ -n $received ]] || ((status == 0 || status == 2 || status == 130)); then
    exit "$status"
  fi
  if ((SECONDS - began > 600)); then crashes=0; fi
  case $status in
    75 | 137 | 143) echo "train_until_done.sh: stopped with status $status, starting again" >&2 ;;
    *)
      crashes=$((crashes + 1))
      if ((crashes > max_crashes)); then
        echo "train_until_done.sh: $crashes crashes in a row, the last with status $status; giving up" >&2
        exit "$status"
      fi
      pause=$((backoff_seconds * 2 ** (crashes - 1)))
      echo "train_until_done.sh: crash $crashes of $max_crashes (status $status), again in $pause s" >&2
      sleep "$pause" &
      child=$!
      wait "$child" || true
      child=''
      if [[ -n $received ]]; then exit "$status"; fi
      ;;
  esac
done
