"""What README shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_python_blocks_run(block, tmp_path):
    result = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_there_are_blocks_and_links_lead_somewhere():
    assert len(BLOCKS) == 8
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert "docs/digits.png" in links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_command_it_names_exists():
    from ganfast.cli import COMMANDS
    from ganfast.recipes import RECIPES

    named = re.findall(r"`ganfast (\w+)(?: (\w[\w-]*))?", README)
    assert {command for command, _ in named} == set(COMMANDS)
    assert {recipe for command, recipe in named if command == "train" and recipe} == set(RECIPES)
