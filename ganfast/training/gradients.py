"""The gradients of some parameters in one piece of memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ALIGNMENT = 16  # numbers: each parameter's gradient begins at 64 bytes


class FlatGradients:
    """``.grad`` of every parameter is a view of one ``buffer`` and stays it.

    One call writes them, one all-reduce sums them over ranks, one norm is that of all. Optimisers must keep them
    (``zero_grad(set_to_none=False)``, or ``zero()`` here). Each view has its parameter's strides. Numbers between two
    views are 0.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)
        sizes = [-(-p.numel() // ALIGNMENT) * ALIGNMENT for p in self.parameters]
        first = self.parameters[0]
        self.buffer = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        self.views, offset = [], 0
        for parameter, size in zip(self.parameters, sizes):
            strides = torch.empty_like(parameter).stride()  # the parameter's, without gaps
            self.views.append(self.buffer.as_strided(parameter.shape, strides, offset))
            offset += size
        self.attach()

    def attach(self) -> None:
        """Where parameters have several: from now on ``.grad`` is these."""
        for parameter, view in zip(self.parameters, self.views):
            parameter.grad = view

    def write(self, gradients: Iterable[Tensor | None]) -> None:
        """These gradients of the parameters, in their order; None: 0."""
        pairs = [(view, g) for view, g in zip(self.views, gradients) if g is not None]
        if len(pairs) < len(self.views):
            self.zero()
        if pairs:
            torch._foreach_copy_(*map(list, zip(*pairs)))

    def zero(self) -> None:
        self.buffer.zero_()

    def clip(self, largest: float, scale: Tensor | None) -> None:
        """Scale all of them down to a norm of ``largest``, of the loss without its ``scale``."""
        norm = self.norm() if scale is None else self.norm() / scale
        self.buffer.mul_((largest / norm.clamp(min=largest)).to(self.buffer.dtype))

    def norm(self) -> Tensor:
        """‖∇‖₂ over all parameters, a scalar on the device."""
        return torch.linalg.vector_norm(self.buffer)
