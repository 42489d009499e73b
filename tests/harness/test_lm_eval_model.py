"""lm-eval's own tasks and command on a run, offline, against our likelihoods and our generation."""

import json

import pytest
import torch

pytest.importorskip("lm_eval")

from support.small_run import page

from megarc.corpus import load_tokenizer
from megarc.data import Pair, read_task
from megarc.errors import UserError
from megarc.harness import MegarcLM, run_lm_eval
from megarc.inference import likelihoods
from megarc.train import load_model

BYTES = load_tokenizer("bytes")
CHOOSE = """task: choose_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


class Request:
    """What lm-eval hands a model."""

    def __init__(self, *args):
        self.args = args


@pytest.fixture(scope="module")
def saved(small_run):
    return load_model(small_run)


def test_a_local_task_gives_our_accuracy(saved, small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    data = small_run.parent / "choose.jsonl"
    (tmp_path / "choose.yaml").write_text(CHOOSE.format(data=data))
    task = read_task(data, BYTES)
    for causal in (False, True):
        nats = [
            one.nats
            for one in likelihoods(saved.model, task.pairs, saved.config.window.build(), causal=causal)
        ]
        found = run_lm_eval(saved, [str(tmp_path / "choose.yaml")], causal=causal)
        assert found["choose_local"]["acc"] == task.results(nats)["accuracy"]
    page("launch/evaluate.py", "--run", small_run, "--tasks", tmp_path / "choose.yaml", data)
    assert "choose_local" in capsys.readouterr().out
    with pytest.raises(UserError, match="is not a task of lm-eval"):
        run_lm_eval(saved, [str(tmp_path / "none.yaml")])


def test_requests(saved, small_run, capsys):
    window, end = saved.config.window.build(), BYTES.end_of_document
    model = MegarcLM(str(small_run), batch_size=4, device="cpu")
    pairs = [("1+1=", "2. "), ("", "12+3=15. 4"), ("a  ", "b" * 20)]
    expected = likelihoods(
        saved.model,
        [Pair([*b"1+1="], [*b"2. "]), Pair([end], [*b"12+3=15. 4"]), Pair([*b"a"], [*b"  " + b"b" * 20])],
        window,
    )
    found = model.loglikelihood([Request(*pair) for pair in pairs], disable_tqdm=True)
    assert found == [(one.nats, one.greedy) for one in expected]
    text = "12+3=15. " * 7
    (rolling,) = model.loglikelihood_rolling([Request(text)])
    assert rolling == likelihoods(saved.model, [Pair([end], [*text.encode()])], window)[0].nats
    keys = [{"until": ["="], "max_gen_toks": 12}, {"until": [], "max_gen_toks": 12}]
    stopped, free = model.generate_until([Request("1+1", one) for one in keys])
    page("launch/generate.py", "--run", small_run, "--prompt", "1+1", "--tokens", 12, "--temperature", 0)
    assert capsys.readouterr().out == f"1+1{free}\n"
    assert stopped == free.split("=")[0]
    with pytest.raises(UserError, match="mask is 'both'"):
        MegarcLM(saved, mask="both")


def test_the_registry_knows_it(small_run):
    from lm_eval.api.registry import get_model

    assert get_model("megarc") is MegarcLM
    made = get_model("megarc").create_from_arg_string(f"run={small_run},mask=causal", {"batch_size": 1})
    assert json.dumps(made.loglikelihood([Request("1", "2")], disable_tqdm=True))


@pytest.mark.parametrize(
    ("given", "gpu", "taken"), [(None, False, "cpu"), (None, True, "cuda"), ("cpu", True, "cpu")]
)
def test_its_device_is_a_gpu_where_there_is_one(monkeypatch, given, gpu, taken):
    from megarc.harness import lm_eval_model

    def looked(path, device):
        raise LookupError(device)

    monkeypatch.setattr(lm_eval_model, "load_model", looked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with pytest.raises(LookupError, match=f"^{taken}$"):
        lm_eval_model.MegarcLM("runs/none", device=given)
