#!/bin/bash
# Keeps a training going on capacity that is taken away: follows the TPU's state and, when it was
# preempted or suspended, deletes it, creates it again, sets it up and runs the same command.
#
#   watch.sh --name=NAME --zone=ZONE --type=v5litepod-8 [--project=PROJECT] [--mode=spot]
#            [--version=VERSION] [--worker=all] [--every=60] [--backoff=60] [--max_backoff=3600]
#            [--max_hours=24] [--max_restarts=20] [--dry_run] -- --model=... --model_dir=gs://...
#
# The run resumes from its last checkpoint, so --model_dir must outlive the machine: gs://.
# --every, --backoff, --max_backoff  seconds; the wait doubles with each failure to get a TPU
# --max_hours, --max_restarts        the budget: beyond it the TPU is deleted and this ends with status 1;
#                                    when the training has ended it is deleted too, with status 0
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/flags.sh"

type="" mode=spot version="" worker=all every=60 backoff=60 max_backoff=3600 max_hours=24 max_restarts=20
parse_flags "type mode version worker every backoff max_backoff max_hours max_restarts" "$@"
[[ $type ]] || die "--type is needed to create the TPU again; see --help"
((${#arguments[@]})) || die "nothing to run: give main.py's flags after --"

where=("--name=$name" "--zone=$zone" "--project=$project")
$dry_run && where+=(--dry_run)
wait_seconds=$backoff restarts=0 # the first creation counts as one

log() { echo "$(date -u +%FT%TZ) $*"; }

state() { # of the request while it waits in the queue, else of the machine
  local request=ACTIVE
  if [[ $mode == queued* ]]; then
    request=$(run_gcloud queued-resources describe "$name" '--format=value(state.state)' 2>/dev/null) ||
      request=MISSING
  fi
  if [[ $request == ACTIVE ]]; then
    run_gcloud tpu-vm describe "$name" '--format=value(state)' 2>/dev/null || echo MISSING
  else
    echo "$request"
  fi
}

job_status() { # nothing while it runs
  on_workers 0 'cat efficientnet/logs/train.status 2>/dev/null || true' 2>/dev/null || true
}

create() { "$here/create.sh" "${where[@]}" "--type=$type" "--mode=$mode" "--version=$version"; }
delete() { "$here/delete.sh" "${where[@]}" "--mode=$mode"; }

start() {
  "$here/setup.sh" "${where[@]}" && "$here/run.sh" "${where[@]}" "--worker=$worker" -- "${arguments[@]}"
}

finish() { # status, why
  log "$2: fetching the logs to logs/$name and deleting the TPU"
  "$here/run.sh" "${where[@]}" "--collect=logs/$name" || log "no logs to fetch"
  delete || log "could not delete $name: look after it, it costs money"
  exit "$1"
}

pause() {
  log "next try in $wait_seconds s"
  sleep "$wait_seconds"
  wait_seconds=$((wait_seconds * 2 < max_backoff ? wait_seconds * 2 : max_backoff))
}

if $dry_run; then
  mode=on_demand state
  delete
  create
  start
  exit
fi

started=false
while true; do
  ((SECONDS < max_hours * 3600)) || finish 1 "$max_hours hours are over"
  now=$(state)
  case $now in
    READY)
      if $started; then
        case $(job_status) in
          "") sleep "$every" && continue ;;
          0) finish 0 "the training has ended" ;;
          2) finish 1 "main.py refuses its flags" ;;
        esac
        log "the training has failed; it goes on from its last checkpoint"
        ((restarts++ < max_restarts)) || finish 1 "$max_restarts restarts are used up"
        pause
      fi
      started=false
      if start; then
        started=true
        log "running on $name"
      else
        log "could not start on $name"
        ((restarts++ < max_restarts)) || finish 1 "$max_restarts restarts are used up"
        pause
      fi
      ;;
    ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES | CREATING | STARTING | RESTARTING | REPAIRING | \
      STOPPING | DELETING | SUSPENDING) sleep "$every" ;;
    *) # PREEMPTED, SUSPENDED, TERMINATED, FAILED, MISSING
      log "$name is $now"
      ((restarts++ < max_restarts)) || finish 1 "$max_restarts restarts are used up"
      started=false
      [[ $now == MISSING ]] || delete || log "could not delete $name"
      if create; then
        wait_seconds=$backoff
      else
        log "could not create $name"
        pause
      fi
      ;;
  esac
done
