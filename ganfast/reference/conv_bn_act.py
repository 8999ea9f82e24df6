"""One link of a chain of layers, in plain PyTorch: the last layer's affine map and activation, a (transposed)
convolution, then an activation or the statistics of the output.

    u = in_act(scale·x + shift)   per channel of x; u = x without scale. The convolution's padding is 0 *after* that.
    z = conv(u, weight) + bias    conv2d, or conv_transpose2d where `transposed`
    y = out_act(z), and with `statistics` the mean and the biased variance of each channel of y over N, H and W

x [N, C_in, H, W]; weight [C_out, C_in, kH, kW], transposed [C_in, C_out, kH, kW]; bias [C_out]; scale, shift [C_in].
The affine map, the statistics and the sums of the backward are in fp32 (fp64 for fp64).
"""

import torch

from ganfast.reference.activation import activate, through
from ganfast.reference.wide import sum_dtype, wide


def per_channel(v):
    return v.view(1, -1, 1, 1)


def channel_sums(x):
    return wide(x).sum((0, 2, 3))


def link_input(x, scale, shift, activation, slope):
    """u, in the dtype of x."""
    if scale is None:
        return x
    return activate((wide(x) * per_channel(scale)).add_(per_channel(shift)), activation, slope, inplace=True).to(
        x.dtype
    )


def output_gradient(dy, dmean, dvar, y, mean, activation, slope):
    """dz from the cotangents of y, mean and var: dy·act'(y), or dy + dmean/n + 2·dvar·(y − mean)/n.

    y and mean may be None where neither an activation nor the statistics need them.
    """
    dz = None if dy is None else through(dy, y, activation, slope)
    if dmean is None and dvar is None:
        return dz
    count = max(y.numel() // y.shape[1], 1)
    rest = 0.0 if dmean is None else per_channel(dmean / count)
    if dvar is not None:
        rest = rest + (y - per_channel(mean)) * per_channel(2 * dvar / count)
    return (rest.expand(y.shape) if dz is None else dz + rest).to(y.dtype)


def conv_bn_act(
    x, scale, shift, weight, bias, transposed, stride, padding, output_padding, in_activation=None, in_slope=0.0,
    out_activation=None, out_slope=0.0, statistics=False,
):  # fmt: skip
    """(y, mean, var); mean and var are empty without ``statistics``."""
    u = link_input(x, scale, shift, in_activation, in_slope)
    y = torch.convolution(u, weight, bias, stride, padding, (1, 1), transposed, output_padding, 1)
    y = activate(y, out_activation, out_slope, inplace=True)
    if not statistics:
        return y, *(y.new_empty(0, dtype=sum_dtype(y)) for _ in range(2))
    var, mean = torch.var_mean(wide(y), (0, 2, 3), correction=0)
    return y, mean, var


def conv_bn_act_tangent(
    x, weight, saved, transposed, stride, padding, output_padding, activation, slope
):  # fmt: skip
    """act'(z)·conv(x, weight), told from saved = act(z): how act(conv(·, weight)) changes with its input, along x."""
    y = torch.convolution(x, weight, None, stride, padding, (1, 1), transposed, output_padding, 1)
    return through(y, saved, activation, slope)


def conv_bn_act_backward(
    dy, dmean, dvar, x, scale, shift, weight, y, mean, transposed, stride, padding, output_padding, in_activation,
    in_slope, out_activation, out_slope, needed,
):  # fmt: skip
    """(dx, dscale, dshift, dweight, dbias), each None where ``needed`` (x, scale and shift, weight, bias) says no.

    dx = dt·scale, dscale = Σ dt·x, dshift = Σ dt with dt = du·in_act', du the convolution's data gradient of dz.
    """
    need_x, need_affine, need_weight, need_bias = needed
    dz = output_gradient(dy, dmean, dvar, y, mean, out_activation, out_slope)
    u = link_input(x, scale, shift, in_activation, in_slope) if need_weight or scale is not None else x
    mask = [need_x or need_affine, need_weight, need_bias]
    dx, dweight, dbias = torch.ops.aten.convolution_backward.default(
        dz, u, weight, [dz.shape[1]], stride, padding, (1, 1), transposed, output_padding, 1, mask
    )
    dscale = dshift = None
    if scale is not None and mask[0]:
        dt = through(wide(dx), wide(u), in_activation, in_slope)
        if need_affine:
            dscale, dshift = channel_sums(dt * x), channel_sums(dt)
        dx = (dt * per_channel(scale)).to(x.dtype) if need_x else None
    return dx, dscale, dshift, dweight, dbias
