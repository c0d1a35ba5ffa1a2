#!/bin/bash
# Starts a command of this project on a TPU's workers, where it goes on when the connection ends.
#
#   run.sh --name=NAME --zone=ZONE [--project=PROJECT] [--worker=all] [--with=tmux] [--job=train]
#          [--dry_run] -- --model=efficientnet-b0 --tpu=local --data_dir=gs://... --model_dir=gs://...
#   run.sh --name=NAME --zone=ZONE --collect=DIR [--job=train]
#
# What follows -- are the flags of main.py. A job that runs already is left alone; logs/JOB.log holds its
# output, logs/JOB.status its exit status when it has ended.
# --worker   all, or the number of one; a slice of several hosts is driven from worker 0
# --with     tmux | nohup
# --collect  fetch the logs of all workers to DIR/worker-N.log instead
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

worker=all with=tmux job=train collect=""
parse_flags "worker with job collect" "$@"
[[ $job =~ ^[a-z0-9_-]+$ ]] || die "--job=$job: small letters, digits, _ and - only"

if [[ $collect ]]; then
  mkdir -p "$collect"
  workers=1
  if ! $dry_run; then
    workers=$(run_gcloud tpu-vm describe "$name" '--format=value(networkEndpoints.len())')
  fi
  for ((i = 0; i < workers; i++)); do
    run_gcloud tpu-vm scp "$name:efficientnet/logs/$job.log" "$collect/worker-$i.log" "--worker=$i" --quiet
  done
  exit
fi

((${#arguments[@]})) || die "nothing to run: give main.py's flags after --"
program=".venv/bin/python main.py$(printf ' %q' "${arguments[@]}") >> logs/$job.log 2>&1; echo \$? > logs/$job.status"
program=$(printf %q "$program")
case $with in
  tmux)
    runs="tmux has-session -t $job 2>/dev/null"
    start="tmux new-session -d -s $job bash -c $program"
    ;;
  nohup)
    runs="test -e logs/$job.pid && kill -0 \$(cat logs/$job.pid) 2>/dev/null"
    start="nohup bash -c $program </dev/null >/dev/null 2>&1 & echo \$! > logs/$job.pid"
    ;;
  *) die "--with=$with: expected tmux or nohup" ;;
esac
on_workers "$worker" "cd efficientnet && mkdir -p logs && { $runs || { rm -f logs/$job.status; $start; }; }"
