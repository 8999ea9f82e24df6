"""The operators as functions, with PyTorch's conventions.

Where no kernel of ours may run (a CPU, few numbers in an eager loop), ``conv_transpose_bn_relu`` and ``conv_bn_act``
are torch's convolution and ``batch_norm_act`` behind it.
"""

import math

import torch
import torch.nn.functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from ganfast import activations, ops, reference
from ganfast.ops import _checks
from ganfast.ops._registry import cast, host_counts, once

__all__ = [
    "batch_norm_act",
    "conv_bn_act",
    "conv_transpose_bn_relu",
    "gradient_penalty",
    "gradient_penalty_terms",
    "interpolate",
    "norm_act",
    "pairwise_l1",
    "sigmoid_bce",
]


def sigmoid_bce(real_logits, fake_logits, real_target=1.0, fake_target=0.0):
    """mean(softplus(x) − t·x) over the real logits plus the same over the fake ones: BCE with logits, both sides.

    real_logits, fake_logits: any shapes, fp32, fp16, bf16 or fp64, both alike; either may be None.
    real_target, fake_target: numbers in [0, 1]; 0.9 for the real ones is one-sided label smoothing.
    Returns a scalar, fp32 (fp64 for fp64 logits); finite for every finite logit; the mean of an empty side is nan, as
    torch's. Differentiable twice. Autocast leaves it alone: sums are in fp32 whatever the logits.
    Raises ValueError or TypeError that names the argument. Goodfellow et al. 2014; Salimans et al. 2016, section 3.4.
    """
    return ops.sigmoid_bce.sigmoid_bce(real_logits, fake_logits, real_target, fake_target)


def interpolate(real, fake, epsilon=None):
    """x̂ = ε·real + (1 − ε)·fake with one ε per sample: the points where a WGAN-GP or DRAGAN penalty looks.

    real, fake: [B, ...], of one shape, dtype (fp32, fp16, bf16 or fp64) and device.
    epsilon: [B], fp32 (fp64 for fp64 samples), a constant; without it ε ~ U[0, 1) is drawn on the device by torch's
    generator: torch.manual_seed repeats it and each replay of a CUDA graph draws anew.
    Returns x̂ like real, channels_last where real is; computed in fp32 and rounded once. Differentiable in real and fake
    to any order. Raises ValueError or TypeError that names the argument. Gulrajani et al. 2017, algorithm 1.
    """
    if real is None or fake is None or epsilon is None:  # else the operator checks
        _checks.samples("real", real)
        _checks.samples("fake", fake)
    if epsilon is None:
        epsilon = torch.rand(real.shape[0], dtype=_checks.sum_dtype(real), device=real.device)
    return ops.interpolate.interpolate(real, fake, epsilon)


def gradient_penalty(g, weight=10.0, kind="two_sided", target=None):
    """P = (1/B) Σ_i φ(‖g_i‖₂), the norm of each sample's gradient taken over all its dimensions: a scalar.

    g: [B, ...], ∂D(x_i)/∂x_i of each sample, fp32, fp16, bf16 or fp64; dense in any order (NCHW, channels_last) it is
    read as it lies. ``kind`` says φ, ``weight`` is its λ or γ, 0 or more:

        "two_sided"      λ·(n − target)²           WGAN-GP, Gulrajani et al. 2017; DRAGAN, Kodali et al. 2017
        "one_sided"      λ·max(0, n − target)²     WGAN-LP, Petzka et al. 2018
        "zero_centered"  γ/2·n²                    R1, R2, Mescheder et al. 2018; has no target

    target: 0 or more; 1 if not given. Returns fp32 (fp64 for fp64), sums in it too; nan for an empty batch, as torch's
    mean. Differentiable twice; where a norm is 0 its derivative is taken as 0. For norms up to 3e38 the compiled and
    Triton kernels do not overflow on the way. Raises ValueError or TypeError that names the argument.
    """
    return ops.gradient_penalty.gradient_penalty(g, *_phi(weight, kind, target), False)[0]


def gradient_penalty_terms(g, weight=10.0, kind="two_sided", target=None):
    """(P, norms, seed) of :func:`gradient_penalty`, with the same arguments, in one pass over g.

    norms: [B], fp32 (fp64 for fp64). seed: v = ∂P/∂g, v_i = φ'(n_i)·g_i/(B·n_i), 0 where n_i is 0; like g. It starts
    the tangent sweep of a penalty without double backward, where it is held constant (``seed.detach()``).
    P and norms are differentiable twice, the seed once.
    """
    return ops.gradient_penalty.gradient_penalty(g, *_phi(weight, kind, target), True)


def _phi(weight, kind, target):
    """weight, target and one_sided of the operator: φ(n) = w·(n − t)² or w·max(0, n − t)²."""
    if kind not in ("two_sided", "one_sided", "zero_centered"):
        raise ValueError(f"kind: got {kind!r}, needs two_sided, one_sided or zero_centered")
    if kind != "zero_centered":
        return weight, 1.0 if target is None else target, kind == "one_sided"
    if target is not None:
        raise ValueError(f"target: got {target!r}, needs none with kind zero_centered, whose norms are drawn to 0")
    _checks.not_negative("weight", weight)
    return weight / 2, 0.0, False


def conv_transpose_bn_relu(
    x, weight, bias=None, bn_weight=None, bn_bias=None, running_mean=None, running_var=None, training=False,
    momentum=0.1, eps=1e-5, stride=1, padding=0, output_padding=0, activation="relu", negative_slope=0.2,
    num_batches_tracked=None,
):  # fmt: skip
    """y = act(batch_norm(conv_transpose2d(x, weight) + bias)), [N, C_out, H', W'].

    x [N, C_in, H, W]; weight [C_in, C_out, kH, kW]; bias, bn_weight, bn_bias, running_mean, running_var [C_out].
    x and weight are of one dtype: fp32, fp16, bf16 or fp64; autocast lowers them. The vectors are of that dtype or
    fp32. The results have the memory layout of torch's convolution. Without ``bn_weight`` there is no batch
    normalisation. In training, or without running statistics, the batch's own mean and variance are used; running
    statistics that are given are updated in place with ``momentum``, and ``num_batches_tracked`` (int64) is increased
    by 1; momentum None: their average over the batches. In evaluation the normalisation is folded into the weights
    wherever those are fewer than the outputs; gradients go through the folding. ``activation`` is a name of
    ganfast.activations.ROWS, such as "relu", "leaky_relu" or "scaled_leaky_relu" (with ``negative_slope``, 0 or more),
    "tanh", "sigmoid", "silu", "gelu", "softplus", or None. Differentiable twice. Raises ValueError or TypeError that
    names the argument. Radford et al. 2015, arXiv:1511.06434.
    """
    geometry = True, _pair("stride", stride), _pair("padding", padding), _pair("output_padding", output_padding)
    batch_norm = bn_weight, bn_bias, running_mean, running_var, num_batches_tracked, training, momentum, eps
    return layer(x, weight, bias, batch_norm, geometry, activation, negative_slope)


def conv_bn_act(
    x, weight, bias=None, bn_weight=None, bn_bias=None, running_mean=None, running_var=None, training=False,
    momentum=0.1, eps=1e-5, stride=1, padding=0, activation="leaky_relu", negative_slope=0.2, num_batches_tracked=None,
):  # fmt: skip
    """y = act(batch_norm(conv2d(x, weight) + bias)), [N, C_out, H', W']; weight [C_out, C_in, kH, kW].

    The other arguments are those of :func:`conv_transpose_bn_relu`. Without batch normalisation the second derivative
    of a piecewise linear activation is absent: a gradient penalty through five such layers makes five convolutions
    fewer than torch's layers. In an eager loop on a GPU a layer of up to a million outputs is torch's own functions.
    """
    geometry = False, _pair("stride", stride), _pair("padding", padding), (0, 0)
    batch_norm = bn_weight, bn_bias, running_mean, running_var, num_batches_tracked, training, momentum, eps
    return layer(x, weight, bias, batch_norm, geometry, activation, negative_slope)


def _pair(name, value):
    if isinstance(value, int):
        return value, value
    if not isinstance(value, (tuple, list)) or not all(isinstance(v, int) for v in value):
        raise TypeError(f"{name}: got {value!r}, needs a whole number or two of them")
    return tuple(value)


@once
def _check_layer(
    x, weight, bias, bn_weight, bn_bias, mean, var, batches, training, momentum, eps, transposed, stride, padding,
    output_padding, activation, slope, lowered,
):  # fmt: skip
    """Of conv_transpose_bn_relu and conv_bn_act; lowered: the dtype of autocast, or None. How many numbers y has."""
    if lowered is not None:
        x, weight = cast((x, weight), lowered)
        bias = ops.conv_bn_act.lowered_bias(bias, lowered)
    geometry, nothing = (transposed, stride, padding, output_padding), (None, None, None)
    check = ops.conv_bn_act.conv_act.check
    check(x, *nothing, weight, bias, *geometry, 0.0, None, 0.0, None, 0.0)
    count, channels = ops.conv_bn_act.outputs(x, weight, *geometry), weight.shape[1 if transposed else 0]
    if bn_weight is None:
        activations.check(activation, slope)
        if activations.ROWS[activation].has_slope:
            _checks.not_negative("negative_slope", slope)
        return count
    ops.batch_norm_act.check_parameters("x", x, channels, bn_weight, bn_bias, eps, activation, slope, "bn_")
    ops.batch_norm_act.check_running("x", x, channels, mean, var, batches, momentum)
    if (training or mean is None) and count == channels != 0:
        raise ValueError(
            f"x: got shape {tuple(x.shape)}, which leaves one value per channel: needs more in training (or eval())"
        )
    return count


def layer(x, weight, bias, batch_norm, geometry, activation, slope):
    """Both of the above; batch_norm: weight, bias, running mean, variance and counter, training, momentum, eps."""
    lowered = None
    if isinstance(x, torch.Tensor) and torch.is_autocast_enabled(x.device.type):
        lowered = torch.get_autocast_dtype(x.device.type)
    count = _check_layer(x, weight, bias, *batch_norm, *geometry, activation, slope, lowered)
    bn_weight, bn_bias, mean, var, batches, training, momentum, eps = batch_norm
    few = count <= SMALL and host_counts(x.device)
    plain = few or ops.conv_bn_act.conv_act.is_plain(x.device)
    behind = weight.numel() >= count  # what is folded into the weights is more than what is normalised
    if bn_weight is not None and (training or mean is None or few or behind):
        use_batch = training or mean is None
        if use_batch and not plain:
            running = (mean, var, batches) if training else (None, None, None)
            run = ops.conv_bn_act.conv_bn_act
            return run(
                x, None, None, None, weight, bias, bn_weight, bn_bias, *running, *geometry, 0.0, None, 0.0, momentum,
                eps, activation, slope, True,
            )[0]  # fmt: skip
        y = _torchs(x, weight, bias, geometry) if plain else conv_act(x, weight, bias, geometry, None, 0.0)
        arguments = y, mean, var, bn_weight, bn_bias, use_batch, momentum, eps, activation, slope, batches
        return (_torchs_batch_norm if few or is_small(y) else batch_norm_act)(*arguments)
    if bn_weight is not None:
        weight, bias = _folded(weight, bias, bn_weight, bn_bias, mean, var, eps, geometry[0])
    if few:
        return reference.activate(_torchs(x, weight, bias, geometry), activation, slope)
    return conv_act(x, weight, bias, geometry, activation, slope)


def conv_act(x, weight, bias, geometry, activation, slope, before=(None, None, None, 0.0, None, 0.0)):
    """The operator; an activation whose derivative it cannot tell from the output stands behind it.

    before: what a chain has left to x: moments, gain, offset, eps, activation and slope.
    """
    inside = (activation, slope) if ops.conv_bn_act.is_from_output(activation) else (None, 0.0)
    y = ops.conv_bn_act.conv_act(x, *before[:3], weight, bias, *geometry, *before[3:], *inside)
    return y if inside[0] == activation else reference.activate(y, activation, slope)


SMALL = 2**20  # numbers that a GPU's memory moves while Python calls an operator
SMALL_ON_CPU = 2**18
SMALL_NORM_ON_CPU, FEW_PIXELS = 2**15, 256  # below either, of contiguous numbers
SMALL_LAST_ON_CPU = 2**12  # of channels last, which torch copies


def is_small_norm(y) -> bool:
    """Whether torch's own normalisation of y is faster than norm_act: few numbers, or planes of a few vectors."""
    if y.device.type != "cpu" or not ops.unforced():
        return y.numel() <= SMALL and host_counts(y.device)
    if not y.is_contiguous():
        return y.numel() <= SMALL_LAST_ON_CPU
    return y.numel() <= SMALL_NORM_ON_CPU or math.prod(y.shape[2:]) < FEW_PIXELS


def is_small(y) -> bool:
    """Whether torch's own normalisation of y is faster: calls from Python cost what is gained."""
    numbers = y.numel()
    if numbers <= SMALL_ON_CPU and y.device.type == "cpu" and ops.unforced():
        return True
    return numbers <= SMALL and host_counts(y.device)


def _torchs(x, weight, bias, geometry):
    """conv(x) + bias by torch's own operator, which costs least where no kernel of ours would run."""
    transposed, stride, padding, output_padding = geometry
    convolve = F.conv_transpose2d if transposed else F.conv2d  # as torch.convolution, but autocast lowers them
    rest = (output_padding,) if transposed else ()
    return convolve(x, weight, bias, stride, padding, *rest)


def _torchs_batch_norm(y, mean, var, weight, bias, training, momentum, eps, activation, slope, batches=None):
    if training and batches is not None:
        batches.add_(1)
        momentum = 1.0 / float(batches) if momentum is None else momentum
    momentum = 0.0 if momentum is None else momentum
    return reference.activate(F.batch_norm(y, mean, var, weight, bias, training, momentum, eps), activation, slope)


def _folded(weight, bias, bn_weight, bn_bias, mean, var, eps, transposed):
    """weight and bias of the convolution that does the normalisation, too; a few operations, differentiable."""
    factor = bn_weight * torch.rsqrt(var + eps)
    shift = -mean if bias is None else bias - mean
    shift = shift * factor if bn_bias is None else shift * factor + bn_bias
    weight_factor = factor.view((1, -1, 1, 1) if transposed else (-1, 1, 1, 1))
    return (weight * weight_factor).to(weight.dtype), shift.to(weight.dtype)


def pairwise_l1(m, others=None):
    """Minibatch discrimination (Salimans et al. 2016): o[i, b] = Σ_j exp(−‖M[i, b] − others[j, b]‖₁), [R, nk].

    m [R, nk, kd]; others [B, nk, kd] of the same dtype, or None: m itself, and the sum includes j = i, as the paper's
    does. One rank's rows against the gathered rows of all ranks: ``others`` are all of them. fp32, fp16, bf16 or fp64;
    sums are in fp32 and the result in the dtype of m, also under autocast. Differentiable twice in both, the
    subgradient of |·| at 0 being 0; memory is O((R + B)·nk·kd) except in fp64, which goes through the reference.
    Raises ValueError or TypeError that names the argument. arXiv:1606.03498, section 3.2.
    """
    return ops.pairwise_l1.pairwise_l1(m, others)


@once
def _check_batch_norm_act(y, mean, var, weight, bias, training, momentum, eps, activation, slope, batches):
    op = ops.batch_norm_act
    if training:
        return op.batch_norm_act.check(y, weight, bias, mean, var, batches, momentum, eps, activation, slope)
    op.check_input(y)
    op.check_parameters("y", y, y.shape[1], weight, bias, eps, activation, slope)
    op.check_running("y", y, y.shape[1], mean, var, batches, momentum)
    if mean is None:
        raise ValueError(f"running_mean: got None, needs a tensor [{y.shape[1]}] in evaluation")


def batch_norm_act(
    y, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5,
    activation="relu", negative_slope=0.2, num_batches_tracked=None,
):  # fmt: skip
    """a = act(weight·(y − mean)/√(var + eps) + bias), like y: F.batch_norm, with its arguments, and an activation.

    y [N, C, ...], fp32, fp16, bf16 or fp64, contiguous or channels_last; weight, bias, running_mean, running_var [C],
    in the dtype of y or in fp32, may be None. In training mean and (biased) variance are those of y, made in fp32, and
    running statistics that are given are updated in place: running += momentum·(batch − running), with the unbiased
    variance; momentum in [0, 1], or None: 1/``num_batches_tracked``, an int64 that is increased by 1 before. Otherwise
    the running statistics are used, as constants. ``activation`` and ``negative_slope`` as in
    :func:`conv_transpose_bn_relu`, but the slope may be any number.
    Differentiable twice in y, weight and bias; autocast leaves it alone; our kernels give the same bits in every run.
    In an eager loop on a GPU up to a million numbers are left to F.batch_norm: calls from Python cost more there.
    Raises ValueError or TypeError that names the argument; ValueError for one value per channel in training.
    Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    arguments = y, running_mean, running_var, weight, bias, training, momentum, eps, activation, negative_slope
    arguments = *arguments, num_batches_tracked
    few = isinstance(y, torch.Tensor) and y.numel() <= SMALL and host_counts(y.device)
    if few or not training:
        _check_batch_norm_act(*arguments)
    if few:
        return _torchs_batch_norm(*arguments)
    rest, op = (eps, activation, negative_slope), ops.batch_norm_act
    if not training:
        wide = _checks.sum_dtype(y)
        moments = torch.stack((running_mean.to(wide), running_var.to(wide)))
        return op.normalise_act(y, weight, bias, moments, *rest)
    return op.batch_norm_act(y, weight, bias, running_mean, running_var, num_batches_tracked, momentum, *rest)[0]


def norm_act(y, groups, weight=None, bias=None, moments=None, eps=1e-5, activation=None, negative_slope=0.2):
    """(a, moments): a = act(weight·(y − mean)/√(var + eps) + bias), like y, in one operator for a family of layers.

    y [N, C, ...], fp32, fp16, bf16 or fp64, contiguous or channels_last. ``groups`` says what mean and (biased)
    variance are of; moments holds both, in fp32 (fp64 for fp64):

        groups       of                                                    moments         layer
        0            each channel over the batch                           [2, 1, C]       batch normalisation
        C            each channel of each sample                           [2, N, C]       instance normalisation
        1            each sample                                           [2, N, 1]       layer normalisation
        a divisor    C/groups neighbouring channels of each sample         [2, N, groups]  group normalisation

    Moments that are given are taken as constants, and returned. weight and bias, each by itself: None, [C], [N, C]
    (conditional batch normalisation, AdaIN) or like y (SPADE), in the dtype of y or in that of the moments.
    ``activation`` and ``negative_slope`` as in :func:`batch_norm_act`, which also keeps running statistics.
    Differentiable twice in y, weight and bias, and once more by torch's operators; so are the moments of y. Autocast
    leaves it alone; our kernels give the same bits in every run. Raises ValueError or TypeError that names the
    argument; ValueError for moments of one value each. Ulyanov et al. 2016, arXiv:1607.08022; Ba et al. 2016,
    arXiv:1607.06450; Wu and He 2018, arXiv:1803.08494; Huang and Belongie 2017, arXiv:1703.06868; Park et al. 2019,
    arXiv:1903.07291.
    """
    if has_torch_function_unary(y):  # a gradient penalty has a rule for it
        rest = weight, bias, moments, eps, activation, negative_slope
        return handle_torch_function(norm_act, (y,), y, groups, *rest)
    a, found = ops.norm_act.norm_act(y, weight, bias, moments, groups, eps, activation, negative_slope)
    return a, found if moments is None else moments
