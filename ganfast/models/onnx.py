"""A trained recipe as ONNX: its arguments [batch, ...] → samples [batch, ...], any batch, standard operators alone.

Of fully convolutional translators images of any size, whose sides are multiples of ``recipe.sides``.
"""

import copy
import importlib.util
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ganfast import reference
from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.nn.conv import FusedConv

OPSET = 18
# max |onnx − torch| / max |torch|: for images in (−1, 1) an eightieth of the step between two of their 256 levels;
# fp32 sums in another order gave 1e-6 at most
BOUND = 1e-4


def export(trained: nn.Module, path: str | os.PathLike) -> float | None:
    """Write ``trained`` to ``path``; returns how far onnxruntime is from torch on the CPU, None where it is missing.

    ``trained`` is what ``ganfast.load`` returns: a module with ``arguments``, the names of its forward's tensors,
    ``axes(name)``, which of their axes may be of any length, and ``example(batch)``, some of them. The distance is
    max |onnx − torch| / max |torch| over batches of 1, 2 and 7, of three sizes where images may be of any.
    Metadata: ``trained.about``. Raises ``InputError`` where a package is missing, where torch cannot export the recipe
    and where the difference is above 1e-4; nothing is written then.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}: pip install 'ganfast[onnx]'.")
    import onnx

    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no directory: give another file (--onnx).")
    model = convert(trained)
    onnx.helper.set_model_props(model, getattr(trained, "about", {}))
    with replacing(path) as partial:
        onnx.save(model, partial)
        difference = check(trained, partial)
        if difference is not None and not difference <= BOUND:
            by = f"{difference:.1e}, more than {BOUND:.0e}"
            raise InputError(f"{path} is not written, because it differs from torch by {by}: use torch.")
    return difference


class Positional(nn.Module):
    """``trained`` with a forward of positional tensors, in the order of its arguments."""

    def __init__(self, trained: nn.Module):
        super().__init__()
        self.trained = trained

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.trained(*tensors)


class Activation(nn.Module):
    """An activation of the table, of torch's functions."""

    def __init__(self, name, slope):
        super().__init__()
        self.name, self.slope = name, slope

    def forward(self, x: Tensor) -> Tensor:
        return reference.activate(x, self.name, self.slope)


def convert(trained: nn.Module):
    """The ``onnx.ModelProto`` of ``trained`` in evaluation mode."""
    module = plain(copy.deepcopy(trained).cpu().eval().requires_grad_(False))
    names = list(trained.arguments)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # that torchvision is not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch to itself
            warnings.filterwarnings("ignore", "# The axis name: (batch|height|width)")  # which inputs share
            program = torch.onnx.export(
                Positional(module).eval(), tuple(trained.example(2).values()), dynamo=True, opset_version=OPSET,
                verbose=False, input_names=names, output_names=["samples"],
                dynamic_shapes=(tuple(map(trained.axes, names)),),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"torch cannot export this recipe as ONNX ({reason}): use ganfast.load in Python.") from error
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
            act = Activation(child.activation, child.negative_slope)
            setattr(module, name, nn.Sequential(child.conv, child.bn or nn.Identity(), act))
        else:
            plain(child)
    return module


@torch.no_grad()
def check(trained: nn.Module, file: Path) -> float | None:
    """max |onnx − torch| / max |torch| of the samples, the largest of three batches; None without onnxruntime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    device = next(trained.parameters()).device
    differences = []
    for batch in (1, 2, 7):
        given = trained.example(batch, seed=batch, larger=batch - 1)
        expected = trained(**{name: tensor.to(device) for name, tensor in given.items()}).cpu()
        (got,) = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)  # samples may all be 0
        differences.append((torch.from_numpy(got) - expected).abs().max() / largest)
    return float(torch.stack(differences).max())
