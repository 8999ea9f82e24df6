"""pytest -m gpu over the test files that this machine's Python can import; says which it leaves out, and why."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN = {"ganfast", *(p.stem for p in [*(ROOT / "tests").iterdir(), *(ROOT / "bench").iterdir()])}


def missing(file: Path) -> list[str]:
    """Packages that a test file imports at its head and that are not installed."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    heads = {name.partition(".")[0] for name in found} - OWN
    return sorted(name for name in heads if importlib.util.find_spec(name) is None)


def main() -> int:
    files = sorted(f for f in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.gpu\b", f.read_text()))
    lacks = {file: missing(file) for file in files}
    for file, packages in lacks.items():
        if packages:
            print(f"left out: {file.relative_to(ROOT)} needs {', '.join(packages)}", flush=True)
    chosen = [str(file.relative_to(ROOT)) for file, packages in lacks.items() if not packages]
    return subprocess.call(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *chosen], cwd=ROOT
    )


if __name__ == "__main__":
    sys.exit(main())
