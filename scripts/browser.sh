#!/usr/bin/env bash
# Installs Debian's Chromium for the browser tests, where there is no browser yet, and root and apt-get to do it. What can't
# be done is said; the tests then say why they are skipped. Called by the Makefile.
set -euo pipefail
for name in chromium chromium-browser google-chrome chrome; do
  command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Setting up Chromium for the browser tests"
  if apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium >/dev/null; then
    exit 0
  fi
fi
echo "No Chromium here, and none could be installed: the browser tests will be skipped, or fail where they must not be." >&2
