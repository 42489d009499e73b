"""The scripts as a person starts them, on a small packed text: every launcher, one script after the other."""

import json

import pytest
from support.scripts import BIN, PRETRAIN, ROOT, keys_of, losses, make_text, python, run

from megarc.rank_environment import free_port


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return make_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def keys(text):
    return keys_of(text)


@pytest.fixture(scope="module")
def trained(text, keys):
    """One run of plain python."""
    python(*PRETRAIN, *keys, f"folder={text}/python")
    return text / "python"


def test_deepspeed_and_torchrun_train_the_same(text, keys, trained):
    run(
        BIN / "deepspeed",
        "--num_accelerators",
        2,
        "--master_port",
        free_port(),
        "--module",
        "megarc",
        "pretrain",
        *PRETRAIN[1:],
        *keys,
        f"folder={text}/deepspeed",
    )
    run(BIN / "torchrun", "--standalone", "--nproc-per-node", 2, *PRETRAIN, *keys, f"folder={text}/torchrun",
        "parallel.zero=3")  # fmt: skip
    for name in ("deepspeed", "torchrun"):
        assert losses(text / name) == pytest.approx(losses(trained), rel=1e-5)
        assert json.loads((text / name / "state.json").read_text())["state"] == "finished"


def test_the_folder_holds_what_the_docs_say(trained):
    held = {path.name for path in trained.iterdir()}
    files = {"config.yaml", "environment.json", "metrics.jsonl", "state.json", "log.txt"}
    assert held == files | {"tensorboard", "checkpoints", "plots", "ranks", "tokenizer", "lock.guard"}
    assert [path.name for path in (trained / "ranks").iterdir()] == ["rank-00000.log"]
    said = (trained / "log.txt").read_text()
    assert "attention engine: split_cpu" in said
    assert (trained / "plots" / "loss.png").stat().st_size > 5000
    line = json.loads((trained / "metrics.jsonl").read_text().splitlines()[0])
    for name in ("train/bits_per_byte", "speed/predicted_tokens_per_second", "speed/mfu_exact_mask",
                 "speed/mfu_full_square", "memory/peak_gib", "train/gradient_norm"):  # fmt: skip
        assert line[name] > 0
    assert line["speed/processed_tokens_per_second"] == 2 * line["speed/predicted_tokens_per_second"]
    assert any(trained.joinpath("tensorboard").iterdir())


def test_a_run_says_all_that_happens(text, trained):
    said = [line.split(" ", 2)[2] for line in (trained / "log.txt").read_text().splitlines()]
    saved = f"{trained}/checkpoints/step-000000006"
    (step,) = [line for line in said if line.startswith("step 4 of 6: loss ")]
    facts = dict(
        part.rsplit(" ", 1) for part in step.removesuffix(" tok/s").replace(" tok/s,", ",").split(", ")[1:]
    )
    assert {"gradient norm", "predicted", "processed", "left"} <= set(facts) and float(
        facts["gradient norm"]
    ) > 0
    (heldout,) = [line for line in said if line.startswith("step 6 of 6: held-out loss ")]
    assert f"{losses(trained)[-1]:.3f} nats/token" in heldout and "bits/byte" in heldout
    assert any(line.startswith(f"step 6 is saved: {saved}, in ") for line in said)
    command = f"python launch/evaluate.py --run {trained} --corpus {text}/heldout"
    assert said[-1] == f"finished at step 6 of 6: {saved}; next: {command}"


def test_evaluate_generate_export(text, trained, tmp_path):
    scores = tmp_path / "scores.json"
    said = python(
        "launch/evaluate.py",
        "--run",
        trained,
        "--corpus",
        text / "heldout",
        "--tokens",
        500,
        "--json",
        scores,
    )
    assert "bits/byte" in said
    (score,) = json.loads(scores.read_text()).values()
    assert score["tokens"] == 500 and 3 < score["nats_per_token"] < 7
    said = python("launch/evaluate.py", "--run", trained, "--corpus", text / "heldout", "--tokens", 500,
                  "--recent", "0,4", "--json", scores)  # fmt: skip
    assert "seeing R both ways" in said and "R of 16 rows (its own)" in said
    (facts,) = json.loads(scores.read_text()).values()
    assert set(facts["masks"]) == {"0", "4", "16"} and facts["masks"]["16"]["more"] == [0, 0]
    prompt = "def main("
    generated = python(
        "launch/generate.py", "--run", trained, "--prompt", prompt, "--tokens", 40, "--no-stop"
    )
    assert generated.startswith(prompt) and len(generated) > len(prompt) + 20
    piped = python(
        "launch/generate.py", "--run", trained, "--prompt", "-", "--tokens", 40, "--no-stop", input=prompt
    )
    assert piped == generated
    python("launch/export.py", "--run", trained, "--to", tmp_path / "one", "--layout", "huggingface")
    assert (tmp_path / "one" / "model.safetensors").stat().st_size > 10_000


def test_dry_run_of_a_thousand_ranks():
    layout = ["parallel.tensor=4", "parallel.pipeline=4", "parallel.sequence=true"]
    talk = ["launch/pretrain.py", "--config", "configs/runs/talk.yaml", "model.vocabulary=50257"]
    said = python(*talk, "--dry-run", "--world-size", 1024, "--rank", 517, *layout)
    assert "rank 517 of 1024: tensor 1 of 4" in said and "reduce_scatter" in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([*PRETRAIN, "data.train=[{path: no/where}]"], "no/where"),
        ([*PRETRAIN, "widnow.recent=3"], "did you mean 'window'"),
        ([*PRETRAIN, "window.stride=65"], "stride is 65"),
        ([*PRETRAIN, "--model.layers", "2"], "without dashes: model.layers=VALUE"),
        (
            ["launch/pretrain.py", "--config", "configs/runs/talk.yaml", "--dry-run"],
            "give model.vocabulary=50257",
        ),
        ([*PRETRAIN, "device=cuda"], "torch sees no GPU"),
        (["launch/pretrain.py", "--config", "no.yaml"], "no such configuration file: no.yaml"),
        (["launch/evaluate.py", "--run", "no/run", "--corpus", "no/where"], "no/where"),
        (["launch/generate.py", "--run", "no/run", "--prompt", "x"], "no/run"),
        (["launch/export.py", "--run", "no/run", "--to", "x"], "no/run"),
    ],
)
def test_a_users_mistake_is_told_without_a_traceback(command, said):
    import torch

    if "device=cuda" in command and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert said in python(*command, code=2)


def test_mistakes_with_data(text, keys, trained, tmp_path):
    small = [*PRETRAIN, *keys, f"folder={tmp_path}/run"]
    assert "make the window shorter" in python(*small, "window.recent=400000", code=2)
    assert "the data has 600 ids" in python(*small, "model.vocabulary=900", code=2)
    assert "seed: 0 there, 1 now" in python(*PRETRAIN, *keys, f"folder={trained}", "seed=1", code=2)
    for end in (".bin", ".idx", ".json"):
        (tmp_path / f"cut{end}").write_bytes((text / f"train{end}").read_bytes())
    whole = (tmp_path / "cut.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(whole[:-100])
    assert "cut.bin" in python(*small, f"data.train=[{{path: {tmp_path}/cut}}]", code=2)


SCRIPTS = sorted(path for folder in ("launch", "data_tools") for path in (ROOT / folder).glob("[!_]*.py"))


@pytest.mark.parametrize("script", [str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_help_shows_an_example(script):
    said = python(script, "--help")
    assert "examples:" in said and f"python {script}" in said
