"""Normalisation over the batch, an instance, a group or a layer, an activation, and two derivatives, in plain PyTorch.

    x̂ = (y − mean)·r,  r = 1/√(var + eps),  z = weight·x̂ + bias,  a = act(z)

y [N, C, ...]; groups ≥ 1: moments [2, N, groups], mean and (biased) variance of each of `groups` groups of neighbouring
channels of each sample; groups = 0: [2, 1, C], of each channel over the batch. weight and bias: None, [C], [N, C] or
like y. Everything is made in the view [N, groups, channels, P]. Sums are fp32 (fp64 for fp64).
Ioffe and Szegedy 2015; Ba et al. 2016; Ulyanov et al. 2016; Wu and He 2018.
"""

import math

import torch

from ganfast.reference.activation import activate, slope_and_bend
from ganfast.reference.wide import wide


def _grouped(v, y, groups):
    """v, a parameter or like y, as [N or 1, groups, channels, P or 1]; wide."""
    batch, channels = y.shape[:2]
    cut = (groups, channels // groups) if groups else (channels, 1)
    plane = 1 if v.dim() <= 2 else math.prod(y.shape[2:])
    return wide(v).reshape(1 if v.dim() == 1 else batch, *cut, plane)


def _over(groups):
    """The dimensions of [N, groups, channels, P] that a statistic is over."""
    return (2, 3) if groups else (0, 2, 3)


def _mean(v, groups):
    return v.mean(_over(groups), keepdim=True)


def _projected(v, x, groups):
    """v − mean(v) − x̂·mean(v·x̂)."""
    return v - _mean(v, groups) - x * _mean(v * x, groups)


def _summed(v, parameter):
    """v summed to the shape of a parameter; None for an absent one."""
    if parameter is None:
        return None
    if parameter.dim() <= 2:
        v = v.sum((0, 3) if parameter.dim() == 1 else 3)
    return v.reshape(parameter.shape)


def _normalised(y, weight, bias, moments, groups, eps):
    """x̂, z, r and weight (1 for an absent one)."""
    mean, var = moments[..., None, None]
    r = (var + eps).rsqrt()
    x = (_grouped(y, y, groups) - mean) * r
    w = torch.ones_like(r) if weight is None else _grouped(weight, y, groups)
    z = x * w
    return x, z if bias is None else z + _grouped(bias, y, groups), r, w


def moments_of(y, groups):
    """Mean and biased variance of each group of y, [2, N, groups], or channel, [2, 1, C]."""
    var, mean = torch.var_mean(_grouped(y, y, groups), _over(groups), correction=0, keepdim=True)
    return torch.stack((mean, var))[..., 0, 0]


def norm_act(y, weight, bias, moments, groups, eps, activation, negative_slope):
    """a like y and the moments, of y; None where they are given."""
    found = moments_of(y, groups) if moments is None else moments
    z = _normalised(y, weight, bias, found, groups, eps)[1]
    a = activate(z, activation, negative_slope).to(y.dtype).reshape(y.shape)
    return a, found if moments is None else None


def norm_act_backward(da, y, weight, bias, moments, given, groups, eps, activation, negative_slope):
    """The cotangents of y, weight and bias from that of a; None for an absent parameter.

    With dz = da·act'(z): Σ dz·x̂ of weight, Σ dz of bias, r·P(weight·dz) of y,
    P v = v − mean(v) − x̂·mean(v·x̂), or with given moments P v = v.
    """
    x, z, r, w = _normalised(y, weight, bias, moments, groups, eps)
    dz = _grouped(da, y, groups) * slope_and_bend(z, activation, negative_slope)[0]
    u = w * dz
    dy = r * (u if given else _projected(u, x, groups))
    dweight = None if weight is None else _summed(dz * x, weight)
    return dy.to(y.dtype).reshape(y.shape), _as_gradient(dweight, weight), _as_gradient(_summed(dz, bias), bias)


def norm_act_double_backward(
    c, c_weight, c_bias, da, y, weight, bias, moments, given, groups, eps, activation, negative_slope
):  # fmt: skip
    """From the cotangents of the backward's results (each may be None), those of da, y, weight and bias.

    With u = weight·dz, q = weight·r·P c + c_weight·x̂ + c_bias and s = q·da·act''(z):

        da:      q·act'(z)                          weight: Σ r·dz·P c + s·x̂
        bias:    Σ s                                y:      r·P e − r²·x̂·mean(c·P u)   (given moments: r·e)
        where e = c_weight·dz + weight·s − r·(c·mean(u·x̂) + u·mean(c·x̂))   (given moments: the first two)

    s is absent where the activation has no second derivative.
    """
    x, z, r, w = _normalised(y, weight, bias, moments, groups, eps)
    slope, bend = slope_and_bend(z, activation, negative_slope)
    g = _grouped(da, y, groups)
    dz, c = g * slope, torch.zeros_like(x) if c is None else _grouped(c, y, groups)
    u, along = w * dz, r * (c if given else _projected(c, x, groups))
    q, e = w * along, torch.zeros_like(x)
    dweight, dbias = dz * along, torch.zeros_like(x)
    if c_weight is not None and weight is not None:
        c_weight = _grouped(c_weight, y, groups)
        q, e = q + c_weight * x, e + c_weight * dz
    if c_bias is not None and bias is not None:
        q = q + _grouped(c_bias, y, groups)
    if bend is not None:
        s = q * g * bend
        dweight, dbias, e = dweight + s * x, s, e + w * s
    if not given:
        e = e - r * (c * _mean(u * x, groups) + u * _mean(c * x, groups))
        e = _projected(e, x, groups) - r * x * _mean(c * _projected(u, x, groups), groups)
    dda, dy = ((v.to(t.dtype)).reshape(y.shape) for v, t in ((q * slope, da), (r * e, y)))
    return dda, dy, _as(_summed(dweight, weight), weight), _as(_summed(dbias, bias), bias)


def through_moments(y, moments, c, groups):
    """The cotangent of y from c, that of its moments."""
    x = _grouped(y, y, groups)
    (of_mean, of_var), mean = c[..., None, None], moments[0, ..., None, None]
    count = max(x.numel() // max(moments[0].numel(), 1), 1)
    return ((of_mean + 2 * of_var * (x - mean)) / count).to(y.dtype).reshape(y.shape)


def _as(v, parameter):
    return v if v is None else v.to(parameter.dtype)


def _as_gradient(v, parameter):
    """Sums stay wide; what has a number for each of y's is as the parameter."""
    return v if v is None or parameter.dim() <= 2 else v.to(parameter.dtype)
