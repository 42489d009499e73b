"""A run folder is whole without the corpora: it keeps their tokenizer, and so does an exported model."""

import hashlib
import shutil

import numpy as np
import pytest
from support.runs import config
from support.scripts import python
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from megarc.config import build
from megarc.corpus import IndexedWriter, TokenizerFacts, make_manifest, write_manifest
from megarc.errors import UserError
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.train import RunConfig, end_of_document, find_tokenizer, load_model, pretrain, same_tokenizer

TOKENIZER = Tokenizer(WordLevel({f"w{number}": number for number in range(50)}, "w0")).to_str().encode()
BESIDE = b'{"eos_token": "<end>"}'


@pytest.fixture(scope="module")
def train():
    groups = connect(meet(ALONE), "cpu")

    def run(text, folder):
        tree = config(folder, 1, 2)
        tree["data"] = {"train": [{"path": str(text / "c")}]}
        pretrain(build(RunConfig, tree, "test"), groups)

    yield run
    disconnect()


def make_corpus(folder, kind="huggingface"):
    with IndexedWriter(folder / "c", np.uint16) as writer:
        writer.add(np.arange(400) % 50)
        writer.finish()
    digest = hashlib.sha256(TOKENIZER).hexdigest()
    facts = TokenizerFacts(kind=kind, digest=digest, vocabulary_size=50, end_of_document=7)
    write_manifest(
        folder / "c", make_manifest(folder / "c", quiet=True).model_copy(update={"tokenizer": facts})
    )
    return facts


class OfTheModel:
    vocabulary_size, digest, end_of_document = 50, hashlib.sha256(TOKENIZER).hexdigest(), 3


def test_the_tokenizer_lies_in_the_run_folder_and_in_what_is_exported(train, tmp_path):
    text, folder, exported = tmp_path / "text", tmp_path / "run", tmp_path / "exported"
    make_corpus(text)
    (text / "other-tokenizer.json").write_bytes(b"{}")
    (text / "tokenizer.json").write_bytes(TOKENIZER)
    (text / "tokenizer_config.json").write_bytes(BESIDE)
    train(text, folder)
    shutil.rmtree(text)
    saved = load_model(folder)
    assert find_tokenizer(saved) == folder.absolute() / "tokenizer" / "tokenizer.json"
    assert end_of_document(saved, OfTheModel()) == 7
    same_tokenizer(saved, OfTheModel(), "it")
    output = python("launch/export.py", "--run", folder, "--to", exported, "--layout", "huggingface")
    assert "tokenizer.json" in output
    for place in (folder / "tokenizer", exported):
        assert (place / "tokenizer.json").read_bytes() == TOKENIZER
        assert (place / "tokenizer_config.json").read_bytes() == BESIDE


def test_one_that_lies_elsewhere_is_asked_for_and_taken_from_there(train, tmp_path):
    text, folder = tmp_path / "text", tmp_path / "run"
    make_corpus(text)
    train(text, folder)
    with pytest.raises(UserError, match=f"is neither in {folder}/tokenizer nor beside"):
        find_tokenizer(load_model(folder))
    (folder / "tokenizer" / "mine.model").write_bytes(TOKENIZER)
    assert find_tokenizer(load_model(folder)).name == "mine.model"


def test_bytes_need_no_file(train, tmp_path):
    make_corpus(tmp_path / "text", kind="bytes")
    train(tmp_path / "text", tmp_path / "run")
    assert str(find_tokenizer(load_model(tmp_path / "run"))) == "bytes"
