"""A generator as ONNX: z [batch, latent_dim] → samples [batch, ...], any batch, operators of the standard alone."""

import copy
import importlib.util
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import nn

from ganfast.errors import InputError
from ganfast.models.latents import latents
from ganfast.nn.conv import FusedConv

OPSET = 18
# max |onnx − torch| / max |torch|: for images in (−1, 1) an eightieth of the step between two of their 256 levels;
# fp32 sums in another order gave 1e-6 at most
BOUND = 1e-4
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, None: nn.Identity}


def export(generator: nn.Module, path: str | os.PathLike) -> float | None:
    """Write ``generator`` to ``path``; returns how far onnxruntime is from torch on the CPU, None where it is missing.

    That is max |onnx − torch| / max |torch| over batches of 1, 2 and 7. Metadata: ``generator.about``.
    Raises ``InputError`` where a package is missing and where the difference is above 1e-4; nothing is written then.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}: pip install 'ganfast[onnx]'.")
    import onnx

    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no directory: give another file (--onnx).")
    model = convert(generator)
    onnx.helper.set_model_props(model, getattr(generator, "about", {}))
    partial = path.with_name(f".{path.name}.partial")
    try:
        onnx.save(model, partial)
        difference = check(generator, partial)
        if difference is not None and not difference <= BOUND:
            by = f"{difference:.1e}, more than {BOUND:.0e}"
            raise InputError(f"{path} is not written, because it differs from torch by {by}: use torch.")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def convert(generator: nn.Module):
    """The ``onnx.ModelProto`` of ``generator`` in evaluation mode."""
    module = plain(copy.deepcopy(generator).cpu().eval().requires_grad_(False))
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # that torchvision is not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch to itself
            program = torch.onnx.export(
                module, (latents(range(2), generator.latent_dim),), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=["z"], output_names=["samples"], dynamic_shapes=({0: "batch"},),
            )  # fmt: skip
    finally:
        log.setLevel(level)
    model = program.model_proto
    for each in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del each.metadata_props[:]  # where each line of code lies on this machine
        each.doc_string = ""
    return model


def plain(module: nn.Module) -> nn.Module:
    """``module`` with ganfast's layers replaced, in place, by torch's that they are made of."""
    for name, child in module.named_children():
        if isinstance(child, FusedConv):
            slope = child.negative_slope
            activation = nn.LeakyReLU(slope) if child.activation == "leaky_relu" else _ACTIVATIONS[child.activation]()
            setattr(module, name, nn.Sequential(child.conv, child.bn or nn.Identity(), activation))
        else:
            plain(child)
    return module


def check(generator: nn.Module, file: Path) -> float | None:
    """max |onnx − torch| / max |torch| of the samples, the largest of three batches; None without onnxruntime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    differences = []
    for batch in (1, 2, 7):
        z = latents(range(batch), generator.latent_dim)
        with torch.no_grad():
            expected = generator(z.to(next(generator.parameters()).device)).cpu()
        (got,) = session.run(None, {"z": z.numpy()})
        differences.append((torch.from_numpy(got) - expected).abs().max() / expected.abs().max())
    return float(torch.stack(differences).max())
