#!/usr/bin/env bash
# What the system tests need from Debian: SLURM with munge, an ssh server, pdsh, network namespaces,
# bubblewrap, Coq, a browser.
# Without root or apt it says what is missing; the tests that need it then say that they are skipped.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin
missing=()
for pair in slurmctld:slurm-wlm munged:munge sshd:openssh-server ssh:openssh-client pdsh:pdsh ip:iproute2 bwrap:bubblewrap coqtop:coq chromium:chromium; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ((EUID)) || ! command -v apt-get >/dev/null; then
    echo "cannot install ${missing[*]} (needs root and apt-get): the tests that need them are skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# Their daemons are not to start by themselves: the tests start their own.
printf '#!/bin/sh\nexit 101\n' >/tmp/no-daemons.$$ && chmod +x /tmp/no-daemons.$$
[[ -e /usr/sbin/policy-rc.d ]] || { mv /tmp/no-daemons.$$ /usr/sbin/policy-rc.d && placed=1; }
rm -f /tmp/no-daemons.$$
apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
code=$?
[[ -n ${placed:-} ]] && rm -f /usr/sbin/policy-rc.d
((code == 0)) || echo "apt-get could not install ${missing[*]}: the tests that need them are skipped" >&2
exit 0
