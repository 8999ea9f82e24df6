"""Importing ganfast is light, and its arrows point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "matplotlib",
    "sklearn",
    "scipy",
    "tensorboard",
    "torchmetrics",
    "PIL",
    "tyro",
    "triton",
    "tqdm",
    "onnx",
    "onnxscript",
    "onnxruntime",
)

# what a folder's modules may import of ganfast; nothing imports upward
BELOW = {
    "activations": set(),
    "kernels": {"activations"},
    "reference": {"activations"},
    "errors": set(),
    "files": set(),
    "data": {"errors", "files"},
    "ops": {"activations", "errors", "files", "reference", "kernels", "_C", "__version__"},
    "functional": {"activations", "ops", "reference"},
    "nn": {"activations", "errors", "functional", "ops", "reference"},
    "fuse": {"errors", "nn", "functional", "ops"},
    "graphs": {"errors", "ops"},
    "penalty": {"activations", "errors", "nn", "functional", "ops", "reference"},
    "objectives": {"errors", "functional", "penalty", "reference"},
    "models": {"errors", "files", "nn", "functional", "reference"},
    "recipes": {"errors", "data", "functional", "models", "nn", "objectives", "penalty"},
    "metrics": {"errors", "files", "data", "models"},
    "terminal": set(),
    "training": {"errors", "files", "fuse", "data", "graphs", "metrics", "models", "nn", "ops", "recipes", "terminal"}
    | {"__version__"},
    "report": {"errors", "files", "recipes", "training", "__version__"},
    "commands": {"errors", "files", "data", "models", "recipes", "training", "metrics", "report"},
    "cli": {"errors", "data", "models", "recipes", "terminal", "training", "metrics", "ops", "commands", "__version__"},
    "__main__": {"cli"},
}


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return result.stdout


def heavy_modules_after(code: str, heavy) -> list[str]:
    """Which of ``heavy`` the ``code`` imports beyond what torch brings itself."""
    probe = f"import sys, torch; old = set(sys.modules); {code}; print(*(set({heavy!r}) & (set(sys.modules) - old)))"
    return run(probe).split()


def test_import_brings_nothing_heavy():
    assert heavy_modules_after("import ganfast", HEAVY) == []
    assert heavy_modules_after("import PIL", HEAVY) == ["PIL"]  # the probe sees


def test_using_the_layers_brings_nothing_heavy():
    code = "import ganfast; ganfast.nn, ganfast.functional, ganfast.recipes, ganfast.models"
    assert heavy_modules_after(code, HEAVY) == []


def test_before_the_first_step_of_training_comes_nothing_that_it_does_not_need(tmp_path):
    code = f"""
from ganfast import Trainer
from ganfast.recipes import GAN
def stop(trainer): raise RuntimeError("stop")
Trainer.advance = stop
trainer = Trainer(GAN(), "gaussians:ring8", steps=1, outdir={str(tmp_path)!r})
try: trainer.train(progress=False)
except RuntimeError: pass
assert trainer.step == 0 and (trainer.run / "fakes.png").exists()
"""
    heavy = (
        "matplotlib",
        "sklearn",
        "scipy",
        "pandas",
        "tensorflow",
        "torchmetrics",
        "onnx",
        "onnxscript",
        "onnxruntime",
    )
    assert heavy_modules_after(f"exec({code!r})", heavy) == []


def test_import_brings_two_files_of_ours_and_nothing_else():
    assert run("import sys, torch; old = set(sys.modules); import ganfast; print(*sorted(set(sys.modules) - old))") == (
        "ganfast ganfast.fuse\n"  # what is imported takes the time
    )


def test_every_public_name_loads():
    import ganfast

    for name in ganfast.__all__:
        assert getattr(ganfast, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ganfast.no_such_name


def imports_of_ganfast(file: Path) -> set[str]:
    """The parts of ganfast that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ganfast.")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ganfast":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{file}: write imports in full")
    return found


@pytest.mark.parametrize(
    "file",
    sorted([*(ROOT / "ganfast").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]),
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_arrows_point_one_way(file):
    parts = file.relative_to(ROOT).parts
    place = parts[0] if parts[0] == "kernels" else parts[1].removesuffix(".py")
    if place == "__init__":
        return  # loads everything lazily
    assert place in BELOW, f"{file} is in no room of docs/architecture.md"
    assert imports_of_ganfast(file) - {place} <= BELOW[place]


@pytest.mark.parametrize(
    "room, allowed",
    [("ganfast/reference", {"torch", "ganfast", "math"}), ("kernels", {"triton", "ganfast", "math", "typing"})],
)
def test_specifications_and_kernels_import_one_library(room, allowed):
    for file in (ROOT / room).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert {name.split(".")[0] for name in names} <= allowed, file
