"""Virtual batch normalisation: by the statistics of a fixed reference batch and of the sample itself."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class VirtualBatchNorm(nn.Module):
    """x [R + B, C, …], the first R rows a reference batch → γ·(x − μ)/√(σ² + ε) + β, γ and β for each of C features.

    Reference rows: μ and σ² are those of all R rows and positions. Row i behind them: those of the reference and of
    itself, weighed R/(R+1) and 1/(R+1), μ_i = μ + δ/(R+1) and σ_i² = σ² + (s_i² − σ²)/(R+1) + δ²·R/(R+1)², with m_i
    and s_i² the row's own mean and variance over positions and δ = m_i − μ. All are in fp32 (fp64 for fp64), and are
    differentiated. Rows behind the reference do not see each other. Training and evaluation are alike.
    Salimans et al. 2016, section 3.5, arXiv:1606.03498. :func:`virtual_batch_norm` puts it into a network.
    """

    def __init__(self, norm: _BatchNorm, rows: int):
        super().__init__()
        self.weight, self.bias, self.eps, self.rows = norm.weight, norm.bias, norm.eps, rows
        self.num_features = norm.num_features

    def forward(self, x: Tensor) -> Tensor:
        y = x if x.dim() > 2 else x.unsqueeze(2)
        y = y if y.dtype == torch.float64 else y.float()
        rows, share, positions = self.rows, 1 / (self.rows + 1), tuple(range(2, y.dim()))
        mean = y.mean(positions, keepdim=True)  # of each row: [R + B, C, 1, …]
        variance = (y - mean).square().mean(positions, keepdim=True)
        at, own = mean[:rows].mean(0, keepdim=True), mean[rows:]
        spread = (variance[:rows] + (mean[:rows] - at).square()).mean(0, keepdim=True)
        apart, every = own - at, (rows, *[-1] * (y.dim() - 1))
        means = torch.cat([at.expand(every), own - (1 - share) * apart])
        moved = (1 - share) * spread + share * variance[rows:] + share * (1 - share) * apart.square()
        y = (y - means) * (torch.cat([spread.expand(every), moved]) + self.eps).rsqrt()
        shape = (1, -1, *[1] * (y.dim() - 2))
        if self.weight is not None:
            y = y * self.weight.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        y = y.to(x.dtype)
        return y if x.dim() > 2 else y.squeeze(2)

    def extra_repr(self):
        return f"{self.num_features}, eps={self.eps}, rows={self.rows}"


def virtual_batch_norm(network: nn.Module, *reference: Tensor) -> nn.Module:
    """Every BatchNorm of the network becomes a :class:`VirtualBatchNorm` with its parameters; gives the network.

    reference   a batch of R ≥ 2 rows for each of the network's arguments: real samples for a discriminator, latents for
                a generator. They become buffers (``reference_0``, …) and are in its ``state_dict``; running statistics
                are no longer

    From then on each call runs the reference in front of the batch, with the weights of that moment, and gives the
    results of the batch alone, so that no statistics are out of date: a call costs (R + B)/B of one without, in
    evaluation and under ``torch.no_grad()`` too. What the network hands to a BatchNorm must keep samples in the first
    dimension. Copies (EMA) have their own reference.
    Raises ValueError where there is no BatchNorm, it was converted before, or the reference does not fit.
    """
    if hasattr(network, "reference_rows"):
        raise ValueError(
            "network: is converted already; give it another reference by way of its buffers reference_0, …"
        )
    found = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    found = [(parent, name, child) for parent, name, child in found if isinstance(child, _BatchNorm)]
    if not found:
        raise ValueError(f"network: {type(network).__name__} has no BatchNorm in it, needs one to be replaced")
    sizes = {len(r) if r.dim() else 0 for r in reference}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(f"reference: got batches of {sorted(sizes)} rows, needs one size of 2 or more")
    made = {}  # a norm that stands in several places stays one
    for parent, name, child in found:
        norm = made.setdefault(child, VirtualBatchNorm(child, *sizes))
        setattr(parent, name, norm.train(child.training))
    network.reference_rows = sizes.pop()
    for i, rows in enumerate(reference):
        network.register_buffer(f"reference_{i}", rows.detach().clone())
    network.register_forward_pre_hook(_with_reference)
    network.register_forward_hook(_without_reference)
    return network


def _with_reference(network, arguments):
    rows = [getattr(network, f"reference_{i}") for i in range(len(arguments))]
    return tuple(torch.cat([r.to(a.dtype), a]) for r, a in zip(rows, arguments))


def _without_reference(network, arguments, result):
    return _behind(result, network.reference_rows)


def _behind(result, rows):
    if isinstance(result, (tuple, list)):
        return type(result)(_behind(each, rows) for each in result)
    return result[rows:]
