"""The commands of the README, in order, as they stand there: on a small text and with a tiny model."""

import re
import subprocess

from support.scripts import ENVIRONMENT, ROOT

TINY = "length='6 steps' batch.size=4 model.layers=1 model.hidden=32 model.ffn=64 validation.windows=4"


def test_the_block_on_ones_own_text_can_be_followed_to_its_end(tmp_path):
    section = (ROOT / "README.md").read_text().split("## Your own text")[1]
    block = re.search(r"```\n(.*?)```", section, re.S)[1]
    commands = [
        line for line in block.replace("\\\n", "").splitlines() if line.startswith(("text=", "megarc "))
    ]
    assert [line.split()[1] for line in commands[1:]] == [
        "train-tokenizer", "preprocess", "pretrain", "evaluate", "generate"
    ]  # fmt: skip
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    script = [
        f"text={ROOT}/megarc"
        if line.startswith("text=")
        else f"{line} {TINY}"
        if " pretrain " in line
        else line
        for line in commands
    ]
    script[1] = script[1].replace("4096", "600")
    script[4] = script[4].replace("20000", "500")
    script[5] += " --tokens 20"
    done = subprocess.run(
        ["bash", "-e", "-x", "-c", "\n".join(script)],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bits/byte" in done.stdout and "def main(" in done.stdout
