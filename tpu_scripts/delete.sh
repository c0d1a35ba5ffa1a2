#!/bin/bash
# Deletes a TPU, and with it all that was kept on its disks; gs:// stays.
#
#   delete.sh --name=NAME --zone=ZONE [--project=PROJECT] [--mode=on_demand] [--dry_run]
#
# --mode  as it was created: on_demand | spot | queued | queued_spot
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

mode=on_demand
parse_flags "mode" "$@"
case $mode in
  on_demand | spot) run_gcloud tpu-vm delete "$name" --quiet ;;
  queued | queued_spot) run_gcloud queued-resources delete "$name" --force --quiet ;;
  *) die "--mode=$mode: expected on_demand, spot, queued or queued_spot" ;;
esac
