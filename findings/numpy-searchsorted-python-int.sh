#!/usr/bin/env bash
# numpy 2.4.6: np.searchsorted of a Python integer in an array of uint64 compares as float64, and can find a wrong place. In
# any integer array but int64 it first converts the whole array.
#
# Guess:   a Python integer takes the array's type, as in `array + 1` and `array < 1` since numpy 2; only log2(n) numbers are read.
# Seen:    the integer becomes int64, and int64 with uint64 becomes float64: 2**53 + 1 is found where 2**53 is. An array of 4
#          million numbers is copied for one lookup: 30 to 40 MB of memory, and some thousand times the time of
#          np.uint64(77). np.less compares the same integer exactly.
# Matters: indexes of corpora hold the ends of documents as uint64 or int32 (datatrove's .ds.index is uint64). On a memory
#          map each lookup reads the whole file. Convert first: np.searchsorted(ends, ends.dtype.type(place)).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6
cat >"$folder/look.py" <<'PY'
import sys
import time
import tracemalloc

import numpy as np

EXACT = 2**53
SIZE = 4_000_000


def least_time(array: np.ndarray, wanted: object) -> float:
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        np.searchsorted(array, wanted)
        times.append(time.perf_counter() - begin)
    return min(times)


def peak(array: np.ndarray, wanted: object) -> int:
    tracemalloc.start()
    np.searchsorted(array, wanted)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


print("numpy", np.__version__)
three = np.array([EXACT, EXACT + 1, EXACT + 2], dtype=np.uint64)
wanted = EXACT + 1
python, typed = int(np.searchsorted(three, wanted)), int(np.searchsorted(three, np.uint64(wanted)))
below = int(np.count_nonzero(three < wanted))
print(f"place of 2**53 + 1 in 2**53, 2**53 + 1, 2**53 + 2: {python} as int, {typed} as np.uint64; {below} number is less")
same = (python, typed, below) == (0, 1, 1)
for kind in (np.uint64, np.int32, np.uint16, np.int64):
    array = (np.arange(SIZE) // (1 if kind != np.uint16 else 100)).astype(kind)
    ratio = least_time(array, 77) / least_time(array, kind(77))
    memory = peak(array, 77), peak(array, kind(77))
    print(f"{kind.__name__}: an int takes {ratio:.0f} times as long as {kind.__name__}(77), and {memory[0]} bytes beside {memory[1]}")
    same &= (memory[0] >= SIZE * 8) == (ratio > 20) == (kind is not np.int64)
print("as stated" if same else "this has changed")
sys.exit(not same)
PY
status=0
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/look.py" || status=1
exit $status
