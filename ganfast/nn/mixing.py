"""Which layers let the samples of a batch see each other."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def mixes_samples(module: nn.Module) -> bool:
    """Whether a sample's result depends on the batch that it is in.

    So it is with a BatchNorm of any kind that takes the batch's own statistics, and with a module, or a part of it,
    that says ``mixes_samples = True``, as the minibatch layers do. Where it is False, batches may go through as one.
    """
    return any(_uses_the_batch(m) if isinstance(m, _BatchNorm) else _declares(m) for m in module.modules())


def _uses_the_batch(norm) -> bool:
    return norm.training or norm.running_mean is None or _declares(norm)


def _declares(module) -> bool:
    return bool(getattr(module, "mixes_samples", False))
