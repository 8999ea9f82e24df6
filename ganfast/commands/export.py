"""``ganfast export``: a generator for other programs."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from ganfast.commands.network import load_generator
from ganfast.models import onnx


@dataclass(kw_only=True)
class Export:
    """A trained generator as ONNX, compared with torch where onnxruntime is installed."""

    network: Path
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    onnx: Path
    """the file to write, FILE.onnx"""

    def run(self) -> None:
        generator, _ = load_generator(self.network, "cpu")
        difference = onnx.export(generator, self.onnx)
        print(f"wrote {self.onnx}: z [batch, {generator.latent_dim}] → samples, opset {onnx.OPSET}")
        if difference is None:
            print("not compared with torch, because onnxruntime is not installed: pip install 'ganfast[onnx]'")
        else:
            version = importlib.metadata.version("onnxruntime")
            print(f"onnxruntime {version} on the CPU and torch differ by {difference:.1e} (at most {onnx.BOUND:.0e})")
