#!/usr/bin/env bash
# torch 2.13.0, CPU: torch.compile fails if the path of its cache folder has a space. The folder is TORCHINDUCTOR_CACHE_DIR,
# or lies under TMPDIR.
#
# Guess:   any folder works, because the C++ compiler is called with a list of arguments.
# Seen:    the command is one string, in which paths are not quoted, and which is split at spaces. g++ 12 says that the
#          input file "is the same as output file", and torch raises InductorError: CppCompileError. Without the space,
#          and with everything else the same, the function compiles.
# Matters: a home or temporary folder with a space in its name; torch's message does not name the space.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5 setuptools==80.9.0
cat >"$folder/look.py" <<'PY'
import torch

compiled = torch.compile(lambda x: x.sin() * 2 + 1)
try:
    compiled(torch.ones(40))
    print("compiled")
except Exception as error:
    print(f"{type(error).__name__}: {str(error).splitlines()[0]}")
PY
cd "$folder"
"$folder/venv/bin/python" -c "import torch; print('torch', torch.__version__)"
mkdir "two words" one
status=0
for cache in "two words" one; do
    said=$(TORCHINDUCTOR_CACHE_DIR="$folder/$cache" venv/bin/python look.py 2>/dev/null | tail -1)
    echo "cache folder '$cache': $said"
    case "$cache, $said" in "two words, InductorError: CppCompileError"* | "one, compiled") ;; *) status=1 ;; esac
done
[ $status = 0 ] && echo "as stated" || echo "this has changed"
exit $status
