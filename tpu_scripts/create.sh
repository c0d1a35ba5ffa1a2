#!/bin/bash
# Creates a TPU: at once, as spot capacity, or as a request that waits in a queue.
#
#   create.sh --name=NAME --zone=ZONE --type=v5litepod-8 [--project=PROJECT] [--mode=on_demand]
#             [--version=VERSION] [--dry_run]
#
# --mode     on_demand | spot (cheap, may be taken away at any time) | queued | queued_spot
# --type     as `gcloud compute tpus accelerator-types list --zone=ZONE` has it
# --version  software of the machine; by default what the generation wants
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

type="" mode=on_demand version=""
parse_flags "type mode version" "$@"
[[ $type ]] || die "--type is needed, such as v5litepod-8 or v4-8; see --help"

# https://cloud.google.com/tpu/docs/runtimes
if [[ ! $version ]]; then
  case $type in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v[234]-*) version=tpu-ubuntu2204-base ;;
    *) die "--type=$type: unknown; give --version too" ;;
  esac
fi

machine=(tpu-vm create "$name" "--accelerator-type=$type" "--version=$version")
request=(queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version")
case $mode in
  on_demand) run_gcloud "${machine[@]}" ;;
  spot) run_gcloud "${machine[@]}" --spot ;;
  queued) run_gcloud "${request[@]}" ;;
  queued_spot) run_gcloud "${request[@]}" --spot ;;
  *) die "--mode=$mode: expected on_demand, spot, queued or queued_spot" ;;
esac
