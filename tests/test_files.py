"""Writing a file whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganfast import files
from ganfast.files import replacing


def test_a_file_appears_whole_and_takes_the_place_of_another(tmp_path):
    file = tmp_path / "x.json"
    for content in ("one", "two"):
        with replacing(file) as partial:
            assert (
                partial.parent == tmp_path and partial.name.startswith(".x.json.") and partial.name.endswith(".partial")
            )
            partial.write_text(content)
            assert not file.exists() or file.read_text() == "one"
        assert file.read_text() == content and os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "x"
    file.write_text("old")
    with pytest.raises(error), replacing(file) as partial:
        partial.write_text("half")
        raise error
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_only_durable_files_are_flushed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(files, "flush", flushed.append)
    for durable in (False, True):
        with replacing(tmp_path / "x", durable) as partial:
            partial.write_text("content")
        assert bool(flushed) is durable and (tmp_path / "x").read_text() == "content"
    assert flushed == [partial, tmp_path]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def test_threads_write_at_once(tmp_path):
    def write(number):
        with replacing(tmp_path / "x") as partial:
            partial.write_text(str(number) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    content = (tmp_path / "x").read_text()
    assert len(content) == 1000 and len(set(content)) == 1 and os.listdir(tmp_path) == ["x"]
