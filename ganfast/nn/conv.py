"""Convolution layers with their batch normalisation and activation."""

from torch import nn

from ganfast import activations
from ganfast.nn.fused_group import FusedGroup, run_group


class FusedConv(nn.Module):
    """Holds ``conv`` and ``bn`` (None without batch normalisation), torch's modules, for their parameters alone.

    Parametrizations (spectral norm) of ``conv`` work; forward hooks on ``conv`` and ``bn`` do not run. ``bn.eval()``,
    ``momentum=None`` and ``track_running_stats=False`` mean what they mean to ``torch.nn.BatchNorm2d``.
    """

    def __init__(self, conv, batch_norm, eps, momentum, activation, negative_slope):
        super().__init__()
        activations.check(activation, negative_slope)
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels, eps=eps, momentum=momentum) if batch_norm else None
        self.activation = activation
        self.negative_slope = negative_slope

    @property
    def fuses(self) -> bool:
        """Whether it is one operator: not with another normalisation in ``bn``, such as SyncBatchNorm."""
        return self.bn is None or type(self.bn) is nn.BatchNorm2d

    def group(self) -> FusedGroup:
        return FusedGroup(self.conv, self.bn, self.activation, self.negative_slope)

    def forward(self, x):
        if self.fuses:
            return self.group()(x)
        return run_group(x, self.conv, self.bn, self.activation and (self.activation, self.negative_slope, False))

    def extra_repr(self):
        slope = f", negative_slope={self.negative_slope}" if activations.ROWS[self.activation].has_slope else ""
        return f"activation={self.activation!r}{slope}"


class ConvTransposeBNReLU2d(FusedConv):
    """act(batch_norm(conv_transpose2d(x))): a layer of a DCGAN generator; [N, C_in, H, W] → [N, C_out, H', W'].

    H' = (H − 1)·stride − 2·padding + kernel_size + output_padding. Arguments as ``torch.nn.ConvTranspose2d`` and
    ``torch.nn.BatchNorm2d``; ``activation`` is one of ``functional.batch_norm_act``; ``batch_norm=False`` leaves
    the normalisation out (a generator's last layer). Initialised as torch initialises its own layers.
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, bias=False, eps=1e-5,
        momentum=0.1, activation="relu", *, batch_norm=True, negative_slope=0.2,
    ):  # fmt: skip
        conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride, padding, output_padding, bias=bias)
        super().__init__(conv, batch_norm, eps, momentum, activation, negative_slope)


class ConvAct2d(FusedConv):
    """act(batch_norm(conv2d(x))): a layer of a critic; [N, C_in, H, W] → [N, C_out, H', W'].

    Arguments as ``torch.nn.Conv2d`` and ``torch.nn.BatchNorm2d``. Without ``batch_norm`` (the default) there is a
    bias, with it there is none, unless ``bias`` says otherwise.
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=None, batch_norm=False, eps=1e-5,
        momentum=0.1, activation="leaky_relu", negative_slope=0.2,
    ):  # fmt: skip
        bias = not batch_norm if bias is None else bias
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        super().__init__(conv, batch_norm, eps, momentum, activation, negative_slope)
