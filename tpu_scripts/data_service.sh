#!/bin/bash
# Starts a part of the data service on this machine, where it goes on when the connection ends.
#
#   data_service.sh --role=dispatcher [--port=5050] [--log_dir=logs] [--dry_run]
#   data_service.sh --role=worker --dispatcher=HOST:5050 [--host=NAME] [--port=0] [--dry_run]
#   data_service.sh --role=dispatcher|worker --stop
#
# One dispatcher, a worker on every helping machine, then train with --set data.service=grpc://HOST:5050.
# What runs already is left alone. LOG_DIR/data_service_ROLE.log holds its output.
# --host  name under which the training hosts reach this worker; by default this machine's own
set -euo pipefail

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
role="" port="" dispatcher="" host="" log_dir=$root/logs dry_run=false stop=false
for flag in "$@"; do
  case $flag in
    --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    --dry_run) dry_run=true ;;
    --stop) stop=true ;;
    --role=* | --port=* | --dispatcher=* | --host=* | --log_dir=*)
      key=${flag%%=*}
      printf -v "${key#--}" %s "${flag#*=}"
      ;;
    *) die "$flag is no flag of this script; see --help" ;;
  esac
done

command=("$python" -m input_pipeline.data_service "$role")
case $role in
  dispatcher) ;;
  worker)
    [[ $dispatcher ]] || $stop || die "--role=worker needs --dispatcher=HOST:PORT"
    command+=("--dispatcher=$dispatcher")
    [[ $host ]] && command+=("--host=$host")
    ;;
  *) die "--role=$role: expected dispatcher or worker" ;;
esac
[[ $port ]] && command+=("--port=$port")

if $dry_run; then
  printf '%q ' "${command[@]}" | sed 's/ $/\n/'
  exit
fi

cd "$root"
mkdir -p "$log_dir"
log=$log_dir/data_service_$role.log pid_file=$log_dir/data_service_$role.pid
pid=$(cat "$pid_file" 2>/dev/null || true)
running() { [[ $pid ]] && kill -0 "$pid" 2>/dev/null; }

if $stop; then
  if running; then kill "$pid"; fi
  rm -f "$pid_file"
  exit
fi
if ! running; then
  nohup "${command[@]}" </dev/null >"$log" 2>&1 &
  pid=$!
  echo "$pid" >"$pid_file"
fi
until grep -qs "$role ready" "$log"; do
  running || { tail -n 1 "$log" >&2 && exit 1; }
  sleep 0.2
done
grep "$role ready" "$log"
