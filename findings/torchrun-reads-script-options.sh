#!/usr/bin/env bash
# torch 2.13.0: torchrun reads options that stand behind the script's name, if they are short for one of its own.
#
# Guess:   torchrun's last argument is argparse.REMAINDER, so all words behind the script's name reach the script.
# Seen:    on Python 3.11, argparse first looks at every word of the line. A word that is short for several options of
#          torchrun ends the command before the script starts. torchrun declares most options twice, with - and with _,
#          so any beginning of such an option is short for two: `torchrun script.py --run R` ends with "ambiguous
#          option: --run could match --run-path, --run_path"; so do --max, --log, --master and --node. An option that
#          has one spelling (--role) does reach the script. With -- before the script's name all of them do.
# Matters: a script with an option --run, --log or --max works under python and not under torchrun.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5 setuptools==80.9.0
printf 'import sys\nprint("script got", *sys.argv[1:])\n' >"$folder/script.py"

try() { "$folder/venv/bin/torchrun" --nproc-per-node 1 "$@" 2>&1 | grep -E "ambiguous option|script got" || true; }

{
  for option in run max log master node; do try "$folder/script.py" "--$option" R; done
  try "$folder/script.py" --rol R
  try -- "$folder/script.py" --run R
} | tee "$folder/seen"
version=$("$folder/venv/bin/python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
ambiguous=$(grep -c "ambiguous option" "$folder/seen" || true)
reached=$(grep -c "script got" "$folder/seen" || true)
echo "Python $version: $ambiguous lines ended by torchrun, $reached reached the script"
[ "$version" = 3.11 ] || { echo "seen with Python 3.11; put a python3 of that version first on PATH" >&2; exit 1; }
{ [ "$ambiguous" = 5 ] && [ "$reached" = 2 ]; } || { echo "CHANGED" >&2; exit 1; }
