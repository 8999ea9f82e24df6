"""Writing a file whole or not at all."""

import os

import pytest

from ganfast.files import replacing


def test_a_file_appears_whole_and_takes_the_place_of_another(tmp_path):
    file = tmp_path / "x.json"
    for content in ("one", "two"):
        with replacing(file) as partial:
            assert partial.parent == tmp_path and partial.name == f".x.json.{os.getpid()}.partial"
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


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / f".x.{os.getpid()}.partial").write_text("a longer rest of before")
    with replacing(tmp_path / "x") as partial:
        partial.write_text("new")
    assert (tmp_path / "x").read_text() == "new" and os.listdir(tmp_path) == ["x"]
