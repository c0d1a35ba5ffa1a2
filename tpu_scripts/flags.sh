# Sourced by the scripts beside it: their flags, and how they call gcloud.
#
# Every flag is --key=value and becomes the variable of its name; a script sets its defaults before.
# shellcheck shell=bash disable=SC2034  # variables are read by the script that sources this

name="" zone="" project="" dry_run=false arguments=()

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# parse_flags "type spot" "$@": sets these and the flags that all share; what follows -- is `arguments`.
parse_flags() {
  local known=" name zone project $1 " key
  shift
  while (($#)); do
    key=${1#--} key=${key%%=*}
    case $1 in
      --) shift && arguments=("$@") && break ;;
      --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
      --dry_run) dry_run=true ;;
      --*=*)
        [[ $known == *" $key "* ]] || die "--$key is no flag of this script; see --help"
        printf -v "$key" %s "${1#*=}"
        ;;
      *) die "$1: flags are --key=value; see --help" ;;
    esac
    shift
  done
  [[ $name && $zone ]] || die "--name and --zone are needed; see --help"
  [[ $name =~ ^[a-z][a-z0-9-]*$ ]] || die "--name=$name: small letters, digits and - only"
}

# gcloud with zone and project; under --dry_run only printed, as it could be pasted into a shell.
run_gcloud() {
  local command=(gcloud compute tpus "$@" "--zone=$zone")
  [[ $project ]] && command+=("--project=$project")
  if $dry_run; then
    printf '%q ' "${command[@]}" | sed 's/ $/\n/'
  else
    "${command[@]}"
  fi
}

# One line of shell for the workers; ssh keys are made without questions.
on_workers() {
  run_gcloud tpu-vm ssh "$name" "--worker=$1" "--command=$2" --quiet
}
