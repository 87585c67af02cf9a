#!/usr/bin/env bash
# Prints which of pyproject's CUDA extras suits this machine's driver: cuda13, cuda12, or nothing where no driver
# answers. Called by the Makefile.
set -euo pipefail
command -v nvidia-smi >/dev/null || exit 0
version=$(nvidia-smi 2>/dev/null | sed -nE 's/.*CUDA( UMD)? Version: *([0-9]+)\..*/\2/p' | head -n 1) || exit 0
case "${version:-0}" in
  0) ;;
  [1-9] | 1[01]) echo "The driver supports CUDA $version; 12 is needed. Going on without a GPU." >&2 ;;
  12) echo cuda12 ;;
  *) echo cuda13 ;;
esac
