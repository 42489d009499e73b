#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy.save_file writes a transposed array with its numbers in the wrong order, without an
# error. 0.7.0 writes it rightly.
#
# Guess:   an array that is not C-contiguous is copied first, as in 0.7.0, or refused, as safetensors.torch refuses such tensors.
# Seen:    0.8.0 takes the array's address and number of bytes, and the shape of the transposed array. What is loaded has
#          the right shape and another order. So has an array in Fortran's order, and the first half of the memory in place
#          of every second row. Both versions' docstring asks for tensors that are "contiguous and dense"; nothing checks.
# Matters: weights that are transposed on the way (nn.Linear to x @ W, or from JAX and TensorFlow) are saved scrambled after
#          an update of the package; sums, shapes and types of the file look right. np.ascontiguousarray before saving helps.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat >"$folder/look.py" <<'PY'
import sys
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load, load_file, save, save_file

RIGHT = {"0.7.0": True, "0.8.0": False}
matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
cases = {"transposed": matrix.T, "Fortran's order": np.asfortranarray(matrix), "every second row": np.repeat(matrix, 2, 0)[::2]}
path = Path(__file__).with_name("weights.safetensors")
save_file(cases, path)
print("safetensors", safetensors.__version__, "numpy", np.__version__)
same = True
for name, array in cases.items():
    found = load_file(path)[name]
    right = np.array_equal(found, array)
    print(f"{name}: {array.tolist()} comes back as {found.tolist()}")
    same &= found.shape == array.shape and right == RIGHT[safetensors.__version__]
    same &= np.array_equal(load(save({name: array}))[name], array) == right
    again = np.ascontiguousarray(array)
    same &= np.array_equal(load(save({name: again}))[name], again)
sys.exit(not same)
PY
status=0
for version in 0.7.0 0.8.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q safetensors==$version numpy==2.4.6
    "$folder/$version/bin/python" "$folder/look.py" || status=1
done
[ $status = 0 ] && echo "as stated" || echo "this has changed"
exit $status
