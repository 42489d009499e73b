"""From Hugging Face into a run, trained on 1 rank and on 4, and back: weights, tokenizer and chat template."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

sys.path.insert(0, str(Path(__file__).parent))
from families import peer, saved, tokens

from megarc.config import load
from megarc.corpus import PackRequest, load_tokenizer, pack_and_join
from megarc.corpus.tokenizer.train import train_tokenizer
from megarc.data import Pair
from megarc.errors import UserError
from megarc.inference import Sampling, Writing, likelihoods, write
from megarc.train import RunConfig, load_model, padding_ids

ROOT = Path(__file__).parents[3]
TEXT = [path.read_text() for path in sorted((ROOT / "megarc" / "model").glob("*.py"))]
CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
SAMPLES = [
    "def main():\n    return  0  # x",
    "  leading",
    "a <|im_start|>user\nb<|im_end|>",
    "\u00fcn\u00efcode \u2603 1234\n\n\ttab",
    " ",
]


def page(name, *arguments):
    """Runs a page of launch/ in this process."""
    before, path = sys.argv, list(sys.path)
    sys.argv = [name, *map(str, arguments)]
    sys.path.insert(0, str(ROOT / "launch"))
    try:
        return runpy.run_path(str(ROOT / "launch" / name), run_name="page")["main"]()
    finally:
        sys.argv, sys.path[:] = before, path


def fast_tokenizer(folder):
    """A tokenizer.json of 400 tokens with two special ones, and a chat template, as transformers saves them."""
    tokenizers = pytest.importorskip("tokenizers")
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=raw.pre_tokenizer.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(TEXT, trainer)
    fast = peer().PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|endoftext|>", additional_special_tokens=special[1:]
    )
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return fast


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The original model and tokenizer, and the folders: imported, trained on 1 and on 4 ranks, exported."""
    folder = tmp_path_factory.mktemp("round")
    theirs = saved(folder / "hf", "Qwen3", {"vocab_size": 420, "head_dim": 16, "tie_word_embeddings": True})
    fast = fast_tokenizer(folder / "hf")
    (folder / "hf" / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2], "top_k": 7}))
    page("import.py", "--from", folder / "hf", "--run", folder / "imported")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXT))
    pack_and_join(
        PackRequest([str(folder / "text.jsonl")], folder / "text", str(folder / "hf"), workers=0, quiet=True)
    )
    begun = load(RunConfig, folder / "imported" / "continue.yaml").model_dump(mode="json")
    keys = {name: begun[name] for name in ("start_from", "start_with", "model")}
    data = {"train": [{"path": str(folder / "text")}], "valid": [{"path": str(folder / "text")}]}
    more = {"data": data, "optimizer__lr": 1e-3, **keys}
    run_jobs([pretrain(folder / "one", 0, 4, **more)], 1, folder)
    split = {"parallel__tensor": 2, "parallel__sequence": True}
    run_jobs([pretrain(folder / "four", 3, 4, **split, **more)], 4, folder)
    page("export.py", "--run", folder / "four", "--to", folder / "back", "--layout", "huggingface")
    return theirs, fast, folder


def test_the_imported_run_is_the_original_model(trained):
    theirs, _, folder = trained
    imported = load_model(folder / "imported")
    text = tokens(30)
    with torch.no_grad():
        found = imported.model.logits(text, slice(None), 0)[..., :420]
        assert torch.allclose(found, theirs(text).logits, atol=1e-5)
    assert imported.config.window.build().recent == 0


def test_training_goes_on_alike_on_one_rank_and_on_four(trained):
    _, _, folder = trained
    for name in ("train/nats_per_token", "train/gradient_norm", "heldout/nats_per_token"):
        one, four = metrics(folder / "one", name), metrics(folder / "four", name)
        assert len(one) >= 1 and torch.allclose(one, four, rtol=1e-5), name
    there = full_state(folder / "four")
    for part, values in full_state(folder / "one").items():
        assert (values - there[part]).abs().max() < 2e-4 * values.abs().max().clamp_min(1e-8), part
    assert "new phase" in (folder / "one" / "log.txt").read_text()
    assert "holds an imported model" in (folder / "one" / "log.txt").read_text()


def test_what_comes_back_is_the_trained_model_with_its_mask(trained):
    _, _, folder = trained
    masked = peer().AutoModelForCausalLM.from_pretrained(
        folder / "back", dtype=torch.float32, trust_remote_code=True
    )
    ours = load_model(folder / "four").model
    text, kinds = tokens(36), torch.tensor([[1] * 24 + [0] * 12] * 2)
    with torch.no_grad():
        found = masked(text, token_type_ids=kinds).logits
        assert torch.allclose(found, ours.logits(text, slice(None), 24)[..., :420], atol=1e-5)


def test_tokenizer_special_ids_and_chat_template_travel(trained):
    _, fast, folder = trained
    back = peer().AutoTokenizer.from_pretrained(folder / "back")
    for sample in SAMPLES:
        assert back(sample)["input_ids"] == fast(sample)["input_ids"]
    talk = [{"role": "user", "content": "hello"}]
    shown = fast.apply_chat_template(talk, tokenize=False)
    assert shown and back.apply_chat_template(talk, tokenize=False) == shown
    assert back.eos_token_id == 0
    assert json.loads((folder / "back" / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    assert json.loads((folder / "back" / "config.json").read_text())["eos_token_id"] == 0


def test_transformers_draws_no_id_without_a_token(trained):
    _, _, folder = trained
    facts = json.loads((folder / "back" / "generation_config.json").read_text())
    assert facts["suppress_tokens"] == list(range(400, 420)) and facts["top_k"] == 7
    torch.manual_seed(0)
    for trust in (False, True):
        model = peer().AutoModelForCausalLM.from_pretrained(folder / "back", trust_remote_code=trust)
        with torch.no_grad():  # tied: the likeliest after most tokens
            model.get_input_embeddings().weight[400:] *= 3
        drawn = model.generate(tokens(9), do_sample=True, top_k=0, max_new_tokens=40, eos_token_id=None)
        assert drawn[:, 9:].max() < 400
    other = type(model.generation_config)(do_sample=False, max_new_tokens=40, suppress_tokens=[5])
    assert not {5, *range(400, 420)} & set(model.generate(tokens(9), other)[:, 9:].flatten().tolist())


def test_a_merge_is_told_what_ends_a_document_too(trained, tmp_path):
    _, _, folder = trained
    words = ("--checkpoints", folder / "imported", folder / "one", "--layout", "huggingface")
    assert page("merge.py", *words, "--to", tmp_path) == 0
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 0
    assert json.loads((tmp_path / "generation_config.json").read_text())["suppress_tokens"][0] == 400
    assert peer().AutoTokenizer.from_pretrained(tmp_path).eos_token_id == 0


def test_a_text_of_another_tokenizer_is_refused(trained):
    _, _, folder = trained
    other = load_tokenizer(folder / "hf")
    assert other.vocabulary_size == 400
    found = load_model(folder / "imported")
    from megarc.train import same_tokenizer

    same_tokenizer(found, other, "the text")  # fewer tokens than the model has ids, but its own tokenizer
    with pytest.raises(UserError, match="use the tokenizer"):
        same_tokenizer(found, load_tokenizer("bytes"), "the text")


def test_ids_without_a_token_are_never_drawn(trained, tmp_path):
    # The model has 420 ids and its tokenizer 400 tokens: an almost random model draws every 20th beyond them.
    _, _, folder = trained
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"def f{n}("}) + "\n" for n in range(6)))
    words = ("--run", folder / "imported", "--prompts", prompts, "--tokens", 40, "--logprobs", "--no-stop")
    for temperature in (0, 1):
        to = tmp_path / f"{temperature}.jsonl"
        page("generate.py", *words, "--temperature", temperature, "--to", to)
        ids = [one for line in to.read_text().splitlines() for one in json.loads(line)["ids"]]
        assert len(ids) == 240 and max(ids) < 400


def test_greedy_targets_of_a_padded_vocabulary_are_greedy(trained):
    _, _, folder = trained
    found = load_model(folder / "imported")
    never, window = padding_ids(found, load_tokenizer(folder / "hf")), found.config.window.build()
    assert never == tuple(range(400, 420))
    with torch.no_grad():  # Tied: ids 400.. become the likeliest after most tokens.
        found.model.embedding.weight[400:420] *= 3
    free, kept = ([Writing([place], 3) for place in range(40, 60)] for _ in range(2))
    list(write(found.model, free, window, Sampling(temperature=0)))
    list(write(found.model, kept, window, Sampling(temperature=0, never=never)))
    assert max(max(one.new) for one in free) >= 400 > max(max(one.new) for one in kept)
    pairs = [Pair(list(one.prompt), one.new) for one in kept]
    masked = likelihoods(found.model, pairs, window, never=never)
    assert all(one.greedy for one in masked)
    plain = likelihoods(found.model, pairs, window)
    assert not all(one.greedy for one in plain)
    # The probability is the model's own, over all ids.
    assert [one.nats for one in masked] == [one.nats for one in plain]


def test_an_import_over_a_run_and_a_failed_one_leave_nothing(trained, tmp_path):
    _, _, folder = trained
    with pytest.raises(UserError, match="is there already"):
        page("import.py", "--from", folder / "hf", "--run", folder / "one")
    with pytest.raises(UserError, match=r"no config\.json"):
        page("import.py", "--from", tmp_path, "--run", tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_killed_import_does_not_stand_in_the_way(trained, tmp_path, monkeypatch):
    """What it left has another name, and goes."""
    from megarc.inference.shard_files import ShardFiles

    _, _, folder = trained
    words, read = ("import.py", "--from", folder / "hf", "--run", tmp_path / "run"), ShardFiles.read
    seen = []

    def looked(self, name):
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        return read(self, name)

    monkeypatch.setattr(ShardFiles, "read", looked)
    (tmp_path / "run.partial" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run.partial" / "checkpoints" / "half").write_bytes(b"of a killed one")
    page(*words)
    assert seen[-1] == ["run.partial"] and [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (tmp_path / "run" / "checkpoints" / "half").exists() and load_model(tmp_path / "run")


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_sentencepiece_gives_transformers_the_same_ids(tmp_path, algorithm):
    from megarc.corpus import describe_tokenizer

    ours = train_tokenizer(TEXT, tmp_path / "tokenizer", 600, algorithm=algorithm)
    describe_tokenizer(tmp_path / "tokenizer.model", None, 128)
    back = peer().AutoTokenizer.from_pretrained(tmp_path)
    for sample in SAMPLES:
        assert back(sample)["input_ids"] == ours.encode(sample).tolist()
    assert back.eos_token_id == ours.end_of_document and back.padding_side == "left"
