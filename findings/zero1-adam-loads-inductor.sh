#!/usr/bin/env bash
# deepspeed 0.19.8 beside torch 2.13.0: deepspeed.initialize with ZeRO 1 and torch's own AdamW loads torch's whole
# compiler (torch._inductor), in a program that compiles nothing, on a machine without a GPU.
#
# Guess:   `import deepspeed` loads it, because some module of the package is decorated with torch.compile.
# Seen:    the import loads none of it. deepspeed.initialize does: the ZeRO 1 optimizer asks whether its inner
#          optimizer is DeepSpeed's Muon and imports that module to ask, and the Newton-Schulz iterations in it are
#          decorated with torch.compile. Modules of torch._inductor afterwards: 17 with ZeRO 0, 181 with ZeRO 1, 17
#          with ZeRO 1 where that module was imported undecorated before. The start took 1.5, 2.6 and 1.2
#          CPU-seconds on a server's core.
# Matters: every rank of every ZeRO 1 or 2 run pays it at each start, tests included.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 deepspeed==0.19.8 numpy==2.3.5 setuptools==80.9.0
cat >"$folder/look.py" <<'PY'
import os
import sys
import time

import torch

stage, undecorated = int(sys.argv[1]), sys.argv[2:] == ["undecorated"]
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])


def loaded() -> int:
    return sum(name.startswith("torch._inductor") for name in sys.modules)


import deepspeed  # noqa: E402
import deepspeed.ops  # noqa: E402

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled by the C++ compiler, for minutes
after_import = loaded()
if undecorated:
    compiled, torch.compile = torch.compile, lambda function=None, **options: function or (lambda inner: inner)
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401

    torch.compile = compiled
model = torch.nn.Linear(8, 8)
start = time.process_time()
deepspeed.initialize(
    model=model,
    optimizer=torch.optim.AdamW(model.parameters()),
    config={"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True},
)
spent = time.process_time() - start
after_start = loaded()
print(f"ZeRO {stage}{', Muon undecorated' if undecorated else ''}: {after_import} modules of torch._inductor after the import, "
      f"{after_start} after initialize, which took {spent:.1f} CPU-seconds")
whole_compiler = stage > 0 and not undecorated
sys.exit(0 if after_import == 0 and (after_start > 100) == whole_compiler else 1)
PY
cd "$folder"
export OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'); export PORT
venv/bin/python look.py 1 >/dev/null 2>&1 || true   # writes the byte code, so that all times are of second imports
status=0
for what in "0" "1" "1 undecorated"; do
    # shellcheck disable=SC2086
    venv/bin/python look.py $what 2>/dev/null >out || status=1
    tail -1 out
done
[ $status = 0 ] && echo "as stated" || echo "this has changed"
exit $status
