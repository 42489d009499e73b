"""Objects as files: versions, globs, ranges, and what people read of a store that fails."""

import pytest

from megarc import object_store
from megarc.errors import UserError
from megarc.object_store import (
    ask,
    explained,
    filesystem,
    find_stored,
    fitting,
    read_ranges,
    without_credentials,
)

pytest.importorskip("fsspec")
URL = "memory://objects/a.txt"


@pytest.fixture
def store():
    files = filesystem(URL)
    files.pipe("/objects/a.txt", b"0123456789")
    yield files
    files.rm("/objects", recursive=True)


def test_a_version_is_the_same_however_the_object_is_found(store):
    alone, (of_folder,), (of_glob,) = (
        ask(URL),
        find_stored("memory://objects")[0],
        fitting("memory://objects/*.txt"),
    )
    assert alone.version == of_folder.version == of_glob.version
    assert alone.url == of_folder.url == of_glob.url == URL
    assert alone.found == alone.stat()


def test_another_object_of_the_same_name_and_size_is_noticed(store):
    before = ask(URL)
    store.pipe("/objects/a.txt", b"9876543210")
    assert before.stat() != before.found
    store.rm("/objects/a.txt")
    assert ask(URL) is None and fitting("memory://objects/*.txt") == []
    with pytest.raises(UserError, match="no longer exists"):
        before.stat()
    store.pipe("/objects/a.txt", b"")


def test_ranges_come_in_order_and_a_short_one_is_an_error(store):
    assert read_ranges(URL, [(7, 10), (0, 2)]) == [b"789", b"01"]
    with pytest.raises(UserError, match="bytes 8 to 12 are 2 bytes"):
        read_ranges(URL, [(8, 12)])
    with pytest.raises(UserError, match="nowhere does not exist"):
        read_ranges("memory://objects/nowhere", [(0, 1)])


def test_credentials_are_read_again_after_a_refusal(store):
    """A profile's token may have been renewed since: a long run must not keep the one that has expired."""
    before = filesystem(URL)
    assert filesystem(URL) is before
    with pytest.raises(UserError, match="not expired"), explained(URL):
        raise PermissionError("ExpiredToken")
    assert filesystem(URL) is not before


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/x", "s3://key:sec/ret@bucket", "gs://key@bucket", "nfs://a:secret@host/x"]
)
def test_credentials_in_a_url_are_refused_and_not_shown(url):
    for look in (ask, find_stored, fitting):
        with pytest.raises(UserError, match="credentials belong in the environment") as error:
            look(url)
        assert "sec" not in str(error.value) and "key" not in str(error.value)
    assert object_store.holds_credentials(url)
    assert "sec" not in without_credentials(f"given: '{url}'")


@pytest.mark.timeout(60)
def test_credentials_are_searched_for_in_one_pass():
    """The pattern of a URL looked from every character to the end of its word: hours for this one."""
    word = "a" * (2 << 20)
    assert without_credentials(word) == word
    many = "s3://" * (1 << 18)
    assert without_credentials(many) == many
    assert without_credentials(f"{word}://k:s@x\ny://k:s@x@z") == f"{word}://...@x\ny://...@z"
