#!/bin/bash
# Copies this project to every worker of a TPU and installs what it needs there.
#
#   setup.sh --name=NAME --zone=ZONE [--project=PROJECT] [--dry_run]
#
# What is committed is copied, to ~/efficientnet. May be run again: what is there is replaced.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

parse_flags "" "$@"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
archive=$(mktemp -d)/efficientnet.tar.gz
trap 'rm -r "$(dirname "$archive")"' EXIT
$dry_run || git -C "$root" archive --format=tar.gz --output="$archive" HEAD

run_gcloud tpu-vm scp "$archive" "$name:efficientnet.tar.gz" --worker=all --quiet
on_workers all 'set -e
mkdir -p efficientnet && tar -xzf efficientnet.tar.gz -C efficientnet && cd efficientnet
command -v python3.11 || { sudo apt-get update -q && sudo apt-get install -yq python3.11 python3.11-venv; }
test -d .venv || python3.11 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tpu.txt
.venv/bin/python tpu_scripts/check_environment.py'
