"""The tutorial's section on SLURM, as the page has it, from a folder that `megarc init` filled."""

import os
import subprocess

import pytest
from support.pages import sections
from support.scripts import BIN, ENVIRONMENT, ROOT, state

from .slurm import absent

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(absent()), reason=absent()),
]


def test_the_slurm_section_trains_two_ranks(slurm, tmp_path):
    parts = dict(sections("tutorial.md"))
    (slurm_script,) = [script for heading, script in parts.items() if heading.endswith("SLURM")]
    tokens, configuration = [
        next(script for heading, script in parts.items() if words in heading)
        for words in ("tokens", "configuration")
    ]
    environment = {
        **ENVIRONMENT,
        "TEXT": str(ROOT / "docs"),
        "SLURM_CONF": slurm.environment["SLURM_CONF"],
    }
    environment["PATH"] = f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"
    script = "megarc init\n" + tokens + configuration + slurm_script
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )
    logs = "\n".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert "2 ranks by slurm" in logs and "-m megarc pretrain" in logs
    assert state(tmp_path / "runs/slurm") == "finished"
