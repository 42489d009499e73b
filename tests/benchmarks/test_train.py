"""The GPU's training benchmark runs, at toy size, where there is no GPU."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_toy_size_on_the_cpu(tmp_path):
    out = tmp_path / "train.json"
    script = ROOT / "benchmarks" / "gpu" / "train.py"
    done = subprocess.run([sys.executable, script, "--device", "cpu", "--toy", "--profile", "--out", out],
                          cwd=tmp_path, capture_output=True, text=True, timeout=170)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["who"]: row for row in json.loads(out.read_text())["rows"]}
    for who in ("ours", "bare"):
        assert "failed" not in rows[who], rows[who]
        assert rows[who]["mfu_exact_mask"] < rows[who]["mfu_full_square"]
    assert "aten::" in rows["ours"]["profile"] and out.with_suffix(".trace.json").exists()
