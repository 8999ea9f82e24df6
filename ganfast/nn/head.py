"""The head of a discriminator, the last layer with weights: what is put beside it, and what it reads."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ganfast.nn.conv import FusedConv
from ganfast.nn.minibatch import MinibatchDiscrimination, MinibatchStddev


def head_of(network: nn.Module) -> str:
    """The name of the layer that makes the scores: of all Linear and convolution layers the last one registered.

    One of ganfast's convolutions is a layer as a whole. Raises ValueError where there is none.
    """
    found, fused = None, None
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Linear, _ConvNd, FusedConv)) and not (fused is not None and name == fused):
            found, fused = name, f"{name}.conv".lstrip(".") if isinstance(layer, FusedConv) else None
    if found is None:
        raise ValueError(f"network: {type(network).__name__} has no Linear and no convolution, needs one that scores")
    return found


class MinibatchFeatures(nn.Module):
    """head(h) + W·o(h): a linear or convolutional head that reads statistics of the batch, too, beside its input h.

    So it is as if o were appended to h; at every position, where the scores are a map. ``statistics`` appends its
    ``count`` numbers to h. W, [features of the scores, count], is N(0, 0.02²) less its mean at first, 0 where count is
    1: what all o have in common, up to B each of minibatch discrimination, has no part in the scores then.
    """

    mixes_samples = True

    def __init__(self, head: nn.Module, statistics: nn.Module, count: int):
        super().__init__()
        self.head, self.statistics = head, statistics
        weight = _weighted(head).weight
        self.weight = nn.Parameter(torch.empty(_outputs(head), count, device=weight.device, dtype=weight.dtype))
        with torch.no_grad():
            self.weight.normal_(0, 0.02).sub_(self.weight.mean(1, keepdim=True))

    def forward(self, h: Tensor) -> Tensor:
        scores = self.head(h)
        if isinstance(self.statistics, MinibatchStddev):
            maps = h if h.dim() == 4 else h[:, :, None, None]
            o = self.statistics(maps)[:, maps.shape[1] :, 0, 0]  # alike at all positions
        else:
            if h.dim() > 2 and scores.shape[2:].numel() != 1:
                raise ValueError(
                    f"h: got {tuple(h.shape)}, of which the head makes scores at {scores.shape[2:].numel()} positions; "
                    'minibatch discrimination needs a head that covers h: take kind="stddev"'
                )
            o = self.statistics(h.flatten(1))[:, self.statistics.in_features :]
        more = F.linear(o, self.weight)
        return scores + more.view(*more.shape, *[1] * (scores.dim() - 2))


def with_minibatch_features(
    network: nn.Module, kind: str = "discrimination", num_kernels: int = 100, kernel_dim: int = 5, group_size: int = 4
) -> nn.Module:
    """Lets the head of a discriminator see the batch (:class:`MinibatchFeatures`, in its place); gives the network.

    kind    "discrimination": h, flattened, through :class:`MinibatchDiscrimination` of ``num_kernels`` kernels of
            ``kernel_dim`` dimensions, 100 of 5 in the paper; the head is a Linear, or its kernel covers h. "stddev":
            the one number of :class:`MinibatchStddev` over groups of ``group_size``

    Raises ValueError for another kind, and for a head that is no affine map (it normalises or has an activation).
    Salimans et al. 2016, section 3.2, arXiv:1606.03498; Karras et al. 2018, section 3, arXiv:1710.10196.
    """
    name = head_of(network)
    head = network.get_submodule(name)
    if isinstance(head, FusedConv) and (head.bn is not None or head.activation is not None):
        raise ValueError(f"network: its last layer, {name}, has a BatchNorm or an activation, needs to be affine")
    weight = _weighted(head).weight
    if kind == "discrimination":
        statistics, count = MinibatchDiscrimination(_inputs(head), num_kernels, kernel_dim), num_kernels
    elif kind == "stddev":
        statistics, count = MinibatchStddev(group_size), 1
    else:
        raise ValueError(f'kind: got {kind!r}, needs "discrimination" or "stddev"')
    made = MinibatchFeatures(head, statistics.to(weight.device, weight.dtype), count).train(head.training)
    if not name:
        return made
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, made)
    return network


def features_of(network: nn.Module, *inputs: Tensor):
    """(scores, features) of a call of a discriminator: features is what its head reads, [B, …], with its gradient.

    For feature matching, ‖E f(x) − E f(G(z))‖² (Salimans et al. 2016, section 3.1, arXiv:1606.03498). The rows of a
    reference batch (:func:`virtual_batch_norm`) are not among them. torch.compile takes it whole. Raises ValueError
    where the network is a head alone, or does not call its head.
    """
    parent, _, child = head_of(network).rpartition(".")
    if not child:
        raise ValueError(f"network: {type(network).__name__} is one layer, needs some below it that make features")
    layers, found = network.get_submodule(parent)._modules, []
    head = layers[child]

    def read(h):
        found.append(h)
        return head(h)

    layers[child] = read  # a hook would do, but torch.compile does not take its registration
    try:
        scores = network(*inputs)
    finally:
        layers[child] = head
    if not found:
        raise ValueError(f"network: {type(network).__name__} did not call {child}, the last of its layers with weights")
    return scores, found[-1][getattr(network, "reference_rows", 0) :]


def _weighted(head):
    """The layer of torch that has the weight."""
    return head.conv if isinstance(head, FusedConv) else head


def _outputs(head) -> int:
    layer = _weighted(head)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _inputs(head) -> int:
    """Numbers of a sample of h."""
    layer = _weighted(head)
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels * prod(layer.kernel_size)
