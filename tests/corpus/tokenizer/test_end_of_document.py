"""Which token ends a document: what was asked for, the files beside the tokenizer, its own, a guess by name."""

import json

import pytest

from megarc.corpus import load_tokenizer
from megarc.corpus.tokenizer.train import train_tokenizer
from megarc.errors import UserError

from .test_tokenizer import SAMPLE

DEEPSEEK = "<\uff5cend\u2581of\u2581sentence\uff5c>"


def huggingface(folder, *special, added=True):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=80, show_progress=False, special_tokens=list(special))
    tokenizer.train_from_iterator(["some text"], trainer)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    if not added:
        tree = json.loads(path.read_text())
        del tree["added_tokens"]
        path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize("named", ["<|im_end|>", {"content": "<|im_end|>", "special": True}])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_the_files_beside_it_say_what_ends_a_document(tmp_path, file, named):
    huggingface(tmp_path, "<|endoftext|>", "<|im_end|>")
    assert load_tokenizer(tmp_path).end_of_document == 0
    (tmp_path / file).write_text(json.dumps({"eos_token": named}))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        tokenizer = load_tokenizer(path)
        assert tokenizer.end_of_document == 1 and file in str(tokenizer.end)
    assert load_tokenizer(tmp_path, "<|endoftext|>").end_of_document == 0
    assert load_tokenizer(tmp_path, "0").end.token == "<|endoftext|>"


def test_where_two_files_tell_the_configuration_counts(tmp_path):
    huggingface(tmp_path, "<|endoftext|>", "<|im_end|>", "<|eot_id|>")
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|eot_id|>"}')
    assert load_tokenizer(tmp_path).end.token == "<|eot_id|>"


def test_what_they_name_must_be_a_token(tmp_path):
    huggingface(tmp_path, "<|endoftext|>", "</s>")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|gone|>"}')
    end = load_tokenizer(tmp_path).end
    assert (
        end.token == "<|endoftext|>"
        and "'<|gone|>', which it does not have" in str(end)
        and "</s> too" in str(end)
    )
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json.*cannot be read"):
        load_tokenizer(tmp_path)


def test_deepseeks_token_is_known_and_a_file_without_added_tokens_is_read(tmp_path):
    assert load_tokenizer(huggingface(tmp_path, "<unk>", DEEPSEEK)).end_of_document == 1
    none = load_tokenizer(huggingface(tmp_path, "<unk>", DEEPSEEK, added=False))
    assert none.end is None
    with pytest.raises(UserError, match="--eod-token"):
        _ = none.end_of_document
    assert load_tokenizer(tmp_path, DEEPSEEK).end_of_document == 1


def test_control_tokens_of_sentencepiece_count_where_it_names_no_end(tmp_path, monkeypatch):
    import sentencepiece

    trainer = sentencepiece.SentencePieceTrainer.train

    def without_end(**options):
        trainer(**{**options, "eos_id": -1})

    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", without_end)
    tokenizer = train_tokenizer(SAMPLE, tmp_path / "t", 420, reserved=("<spare0>", "<|endoftext|>"))
    assert tokenizer.end.token == "<|endoftext|>" and "<|endoftext|>" not in tokenizer.reserved
    assert load_tokenizer(tmp_path / "t.model", "<spare0>").end.token == "<spare0>"


def test_bytes():
    assert (load_tokenizer("bytes").end_of_document, load_tokenizer("bytes", "<ro>").end_of_document) == (
        256,
        257,
    )
