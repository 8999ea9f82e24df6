from pathlib import Path

import pytest
from commands import small
from commands.tiny import TINY

from ganfast.cli import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in an empty directory of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(autouse=True)
def recipes(monkeypatch):
    small.install(monkeypatch)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run trained by the command line; changed by no test."""
    outdir = tmp_path_factory.mktemp("trained")
    assert main(["train", "dcgan", "--data", "digits", "--outdir", str(outdir), *TINY]) == 0
    before = contents(outdir)
    yield outdir / "00000-dcgan-digits"
    assert contents(outdir) == before


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def fails(capsys):
    """fails(*argv) → the one sentence on stderr with which the command line refuses argv."""

    def check(*argv) -> str:
        capsys.readouterr()
        before = sorted(Path().rglob("*"))
        assert main([str(word) for word in argv]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("ganfast: ") and err.count("\n") == 1, err
        assert sorted(Path().rglob("*")) == before  # and nothing is written
        return err

    return check
