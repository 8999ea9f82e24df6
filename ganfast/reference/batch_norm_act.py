"""Batch normalisation with an activation, given statistics, two derivatives, running statistics, in plain PyTorch.

    x̂ = (y − mean)·r,  r = 1/√(var + eps),  z = weight·x̂ + bias,  a = act(z)

Ioffe and Szegedy 2015. moments [2, C] are mean and (biased) variance of each channel of y [N, C, ...], or given. Sums
are fp32 (fp64 for fp64).
"""

import torch

from ganfast.reference.activation import activate, slope_and_bend
from ganfast.reference.wide import wide


def _around(v, y):
    """v [C] against y [N, C, ...]."""
    return v.reshape(-1, *[1] * (y.dim() - 2))


def _sums(x):
    """Σ over all dimensions but the channels': [C]."""
    return x.sum([d for d in range(x.dim()) if d != 1])


def _factors(y, weight, bias, var, eps):
    """r, weight and bias [C], wide; without an affine map 1 and 0."""
    r = (wide(var) + eps).rsqrt()
    return r, torch.ones_like(r) if weight is None else wide(weight), None if bias is None else wide(bias)


def _normalised(y, weight, bias, moments, eps):
    """x̂, z, r and weight."""
    mean, var = moments.unbind()
    r, w, b = _factors(y, weight, bias, var, eps)
    x = (wide(y) - _around(wide(mean), y)) * _around(r, y)
    z = x * _around(w, y)
    return x, z if b is None else z + _around(b, y), r, w


def count_of(y):
    """Elements of a channel."""
    return y.numel() // max(y.shape[1], 1)


def moments_of(y):
    """Mean and biased variance of each channel of y: [2, C]."""
    var, mean = torch.var_mean(wide(y), [d for d in range(y.dim()) if d != 1], correction=0)
    return torch.stack((mean, var))


def normalise_act(y, weight, bias, moments, eps, activation, negative_slope):
    """a like y, with given moments."""
    return activate(_normalised(y, weight, bias, moments, eps)[1], activation, negative_slope).to(y.dtype)


def batch_norm_act(
    y, weight, bias, running_mean, running_var, batches, momentum, eps, activation, negative_slope
):  # fmt: skip
    """a like y and the moments; running statistics that are given are updated in place."""
    moments = moments_of(y)
    update_running_statistics(running_mean, running_var, batches, momentum, moments.detach(), count_of(y))
    return normalise_act(y, weight, bias, moments, eps, activation, negative_slope), moments


def batch_norm_act_backward(da, y, weight, bias, moments, use_batch, eps, activation, negative_slope):
    """The cotangent of y from that of a, and sums [2, C]: Σ dz, that of bias, and Σ dz·x̂, that of weight.

    With dz = da·act'(z) that of y is weight·r·(dz − (Σ dz + x̂·Σ dz·x̂)/n), with given moments weight·r·dz.
    """
    x, z, r, w = _normalised(y, weight, bias, moments, eps)
    dz = wide(da) * slope_and_bend(z, activation, negative_slope)[0]
    dbias, dweight = _sums(dz), _sums(dz * x)
    inner = _projected(dz, x, dbias, dweight) if use_batch else dz
    return (inner * _around(w * r, y)).to(y.dtype), torch.stack((dbias, dweight))


def batch_norm_act_double_backward(c, c_sums, da, y, weight, bias, moments, use_batch, eps, activation, negative_slope):
    """From the cotangents of the backward's results (either may be None), those of da, y, weight and bias.

    With c_bias, c_weight = c_sums, P v = v − (Σ v + x̂·Σ v·x̂)/n (given statistics: v),
    q = weight·r·P c + c_weight·x̂ + c_bias and s = q·da·act''(z):

        da:      q·act'(z)                          weight: r·Σ c·P dz + Σ s·x̂
        bias:    Σ s                                y:      r·P e − r²·x̂·weight·(Σ c·P dz)/n   (given statistics: r·e)
        where e = c_weight·dz + weight·s − weight·r·(c·Σ dz·x̂ + dz·Σ c·x̂)/n   (given statistics: the first two)

    s is absent where the activation has no second derivative.
    """
    x, z, r, w = _normalised(y, weight, bias, moments, eps)
    slope, bend = slope_and_bend(z, activation, negative_slope)
    g = wide(da)
    dz = g * slope
    c = torch.zeros_like(x) if c is None else wide(c)
    scale, n = _around(w * r, y), max(y.numel() // max(y.shape[1], 1), 1)
    along, products = _sums(dz * x), _sums(c * x)
    projected = _projected(dz, x, _sums(dz), along) if use_batch else dz
    q = scale * (_projected(c, x, _sums(c), products) if use_batch else c)
    e = torch.zeros_like(x)
    if c_sums is not None:
        c_bias, c_weight = (_around(v, y) for v in c_sums)
        q, e = q + c_weight * x + c_bias, e + c_weight * dz
    across = _sums(c * projected)
    dweight, dbias = r * across, torch.zeros_like(r)
    if bend is not None:
        s = q * g * bend
        dweight, dbias, e = dweight + _sums(s * x), _sums(s), e + _around(w, y) * s
    if use_batch:
        e = e - scale / n * (c * _around(along, y) + dz * _around(products, y))
        e = _projected(e, x, _sums(e), _sums(e * x)) - x * _around(r * w * across / n, y)
    return (q * slope).to(da.dtype), (e * _around(r, y)).to(y.dtype), _as(weight, dweight), _as(bias, dbias)


def moments_gradient(weight, moments, eps, sums):
    """The cotangent of given moments [2, C] from sums (Σ dz, Σ dz·x̂)."""
    r = (moments[1] + eps).rsqrt()
    scale = r if weight is None else r * wide(weight)
    return torch.stack((-scale * sums[0], -0.5 * scale * r * sums[1]))


def through_moments(y, mean, c):
    """The cotangent of y from c, that of its moments."""
    of_mean, of_var, mean = (_around(v, y) for v in (*(c / max(count_of(y), 1)), mean))
    return (of_mean + 2 * of_var * (wide(y) - mean)).to(y.dtype)


def update_running_statistics(running_mean, running_var, batches, momentum, moments, count):
    """In place: running = (1 − momentum)·running + momentum·batch, of variances var·count/(count − 1); batches += 1.

    Each may be None; without a momentum it is 1/batches, the cumulative average. An empty batch is counted, no more.
    """
    if batches is not None:
        batches.add_(1)
    if running_mean is None or not count:
        return
    weight = momentum if momentum is not None else 0.0 if batches is None else 1.0 / batches.to(moments.dtype)
    unbiased = moments[1] * (count / (count - 1) if count > 1 else float("nan"))
    for running, value in ((running_mean, moments[0]), (running_var, unbiased)):
        running.copy_((1 - weight) * running.to(value.dtype) + weight * value)  # lerp makes NaN of two infinities


def _projected(v, x, total, along):
    """v − (Σ v + x̂·Σ v·x̂)/n."""
    n = max(v.numel() // max(v.shape[1], 1), 1)
    return v - (_around(total, v) + x * _around(along, v)) / n


def _as(parameter, v):
    return v if parameter is None else v.to(parameter.dtype)
