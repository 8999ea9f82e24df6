"""A convolution or transposed convolution with what comes before and after it, in plain PyTorch.

    u = in_act(gain·(x − mean)/√(var + in_eps) + offset)   of given moments [2, C_in] of x; u = x without them
    z = conv(u, weight) + bias                             conv2d, or conv_transpose2d where `transposed`
    conv_act:     y = act(z)
    conv_bn_act:  a = act(bn_weight·(z − mean)/√(var + eps) + bn_bias), with z and its moments [2, C_out]

x [N, C_in, H, W]; weight [C_out, C_in, kH, kW], transposed [C_in, C_out, kH, kW]; bias, bn_weight, bn_bias [C_out] and
gain, offset [C_in] of its dtype or fp32. The convolution's padding is 0 in u. Moments (mean, biased variance) and sums
are fp32 (fp64 for fp64).
"""

import torch

from ganfast.reference.activation import activate, through
from ganfast.reference.batch_norm_act import (
    batch_norm_act,
    batch_norm_act_backward,
    moments_gradient,
    moments_of,
    normalise_act,
    through_moments,
    update_running_statistics,
)
from ganfast.reference.wide import wide


def input_of(x, moments, gain, offset, eps, activation, slope):
    """u, in the dtype of x."""
    return x if moments is None else normalise_act(x, gain, offset, moments, eps, activation, slope)


def conv_act(
    x, moments, gain, offset, weight, bias, transposed, stride, padding, output_padding, in_eps=1e-5,
    in_activation=None, in_slope=0.0, activation=None, slope=0.0,
):  # fmt: skip
    """y."""
    u = input_of(x, moments, gain, offset, in_eps, in_activation, in_slope)
    bias = None if bias is None else bias.to(u.dtype)
    z = torch.convolution(u, weight, bias, stride, padding, (1, 1), transposed, output_padding, 1)
    return activate(z, activation, slope, inplace=True)


def conv_act_tangent(x, weight, saved, transposed, stride, padding, output_padding, activation, slope):
    """act'(z)·conv(x, weight), told from saved = act(z): how act(conv(·, weight)) changes with its input, along x."""
    y = torch.convolution(x, weight, None, stride, padding, (1, 1), transposed, output_padding, 1)
    return through(y, saved, activation, slope)


def conv_bn_act(
    x, moments, gain, offset, weight, bias, bn_weight, bn_bias, running_mean, running_var, batches, transposed, stride,
    padding, output_padding, in_eps=1e-5, in_activation=None, in_slope=0.0, momentum=0.1, eps=1e-5, activation=None,
    slope=0.0, apply=True,
):  # fmt: skip
    """(a, z, moments of z); a is empty without ``apply``. Running statistics that are given are updated in place."""
    geometry = transposed, stride, padding, output_padding
    z = conv_act(x, moments, gain, offset, weight, bias, *geometry, in_eps, in_activation, in_slope)
    running = running_mean, running_var, batches, momentum
    if apply:
        a, found = batch_norm_act(z, bn_weight, bn_bias, *running, eps, activation, slope)
        return a, z, found
    found = moments_of(z)
    update_running_statistics(*running, found.detach(), z.numel() // z.shape[1])
    return z.new_empty(0), z, found


def output_gradient(da, dz, dmoments, bn_weight, bn_bias, y, moments, eps, activation, slope):
    """The cotangent of z, and batch_norm_act_backward's sums; without moments da is that of y = act(z)."""
    if moments is None:
        return through(da, y, activation, slope), None
    sums = None
    if da is not None:
        from_a, sums = batch_norm_act_backward(da, y, bn_weight, bn_bias, moments, True, eps, activation, slope)
        dz = from_a if dz is None else dz + from_a
    if dmoments is not None:
        rest = through_moments(y, moments[0], dmoments)
        dz = rest if dz is None else dz + rest
    return dz, sums


def conv_bn_act_backward(
    da, dz, dmoments, x, in_moments, gain, offset, weight, bn_weight, bn_bias, y, moments, transposed, stride, padding,
    output_padding, in_eps, in_activation, in_slope, eps, activation, slope, needed,
):  # fmt: skip
    """The cotangents of x and in_moments, of (offset, gain) [2, C_in], of weight and bias, of (bn_bias, bn_weight).

    Of conv_act: y and da, its cotangent, without moments. Of conv_bn_act: y is z, da, dz and dmoments are those of its
    results, of which one is there at least. Each is None where ``needed`` (x; what stands before it; weight; bias) says
    no, or there is no such input.
    """
    need_x, need_before, need_weight, need_bias = needed
    dz, dbn = output_gradient(da, dz, dmoments, bn_weight, bn_bias, y, moments, eps, activation, slope)
    u = input_of(x, in_moments, gain, offset, in_eps, in_activation, in_slope) if need_weight else x
    mask = [need_x or need_before, need_weight, need_bias]
    dx, dweight, dbias = torch.ops.aten.convolution_backward.default(
        dz, u, weight, [dz.shape[1]], stride, padding, (1, 1), transposed, output_padding, 1, mask
    )
    din_moments = dbefore = None
    if in_moments is not None and mask[0]:
        dx, dbefore = batch_norm_act_backward(dx, x, gain, offset, in_moments, False, in_eps, in_activation, in_slope)
        din_moments = moments_gradient(gain, in_moments, in_eps, dbefore)
    before = (din_moments, dbefore) if need_before else (None, None)
    return dx if need_x else None, *before, dweight, wide(dbias) if need_bias else None, dbn
