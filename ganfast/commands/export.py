"""``ganfast export``: a trained recipe for other programs."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganfast.commands import network
from ganfast.models import onnx


@dataclass(kw_only=True)
class Export:
    """A trained recipe as ONNX, compared with torch where onnxruntime is installed."""

    network: Path
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    onnx: Path
    """the file to write, FILE.onnx"""
    direction: Literal["ab", "ba"] | None = None
    """which way it translates; by default as it was trained to show"""
    domain: Literal["a", "b"] | None = None
    """whose image of each pair, as --data or as --data-b; by default as it was trained to show"""

    def run(self) -> None:
        trained = network.load(self.network, "cpu", self.direction, self.domain)
        difference = onnx.export(trained, self.onnx)
        inputs = ", ".join(
            f"{name} {'int64 ' * (not tensor.is_floating_point())}"
            f"[{', '.join(trained.axes(name).get(axis, str(side)) for axis, side in enumerate(tensor.shape))}]"
            for name, tensor in trained.example(1).items()
        )
        print(f"wrote {self.onnx}: {inputs} → samples, opset {onnx.OPSET}")
        if difference is None:
            print("not compared with torch, because onnxruntime is not installed: pip install 'ganfast[onnx]'")
        else:
            version = importlib.metadata.version("onnxruntime")
            print(f"onnxruntime {version} on the CPU and torch differ by {difference:.1e} (at most {onnx.BOUND:.0e})")
