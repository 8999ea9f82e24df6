"""A network after some steps of gradient descent, as a function of what they depend on (Metz et al. 2017)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call


class At(nn.Module):
    """``network`` with these ``tensors`` in place of its own parameters and buffers of the same names."""

    def __init__(self, network: nn.Module, tensors: Mapping[str, Tensor]):
        super().__init__()
        self.network, self.tensors = network, dict(tensors)

    def forward(self, *inputs: Tensor) -> Tensor:
        return functional_call(self.network, self.tensors, inputs)


def unroll(network: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int, lr: float) -> At:
    """``network`` after ``steps`` of θ ← θ − lr·∇loss(θ), differentiable in all that ``loss`` depends on.

    ``loss`` gets the network at θ and returns a scalar. The network itself keeps its parameters and its buffers, which
    BatchNorm moves in copies; it is a constant of the result. First-order code to its caller, who differentiates once:
    the gradient then goes through the steps by Hessian-vector products. Metz et al. 2017, arXiv:1611.02163, eq. 7-9.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    weights = {name: parameter.detach().requires_grad_() for name, parameter in network.named_parameters()}
    for _ in range(steps):
        value = loss(At(network, weights | buffers))
        gradients = torch.autograd.grad(
            value, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        weights = {name: weight - lr * gradient for (name, weight), gradient in zip(weights.items(), gradients)}
    return At(network, weights | buffers)
