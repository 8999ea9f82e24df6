"""Weights of translators that their authors have published."""

import os
from typing import TypeVar

from torch import nn

from ganfast.models.published import fitting, read

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Network = TypeVar("Network", bound=nn.Module)


def load_published(network: Network, path: str | os.PathLike) -> Network:
    """``network`` with the weights of a .pth file of pytorch-CycleGAN-and-pix2pix, or of CUT's or StarGAN's authors.

    It is a ``unet.UNet``, a ``Generator`` of ``cyclegan``, ``cut`` or ``stargan``, a ``cyclegan.PatchDiscriminator`` or
    a ``stargan.Discriminator`` of the file's size, and has all of the file's tensors but the statistics that old files
    have of InstanceNorm; the prefix ``module.`` of networks on several GPUs is taken off. No code of the file runs.
    Raises ``InputError`` where it cannot be read, or does not fit.
    """
    tensors = {key.removeprefix("module."): value for key, value in read(path, "path").items()}
    own = network.state_dict().keys()
    kept = {key: value for key, value in tensors.items() if key in own or key.rpartition(".")[2] not in STATISTICS}
    fitting(network, kept, type(network).__name__, f"path {path}")
    return network
