"""The operators as functions, with PyTorch's conventions.

``conv_transpose_bn_relu`` and ``conv_act`` have no kernels yet: they are the plain PyTorch compositions of
``ganfast.reference``, at their speed.
"""

from ganfast import ops, reference

__all__ = ["conv_act", "conv_transpose_bn_relu", "pairwise_l1", "sigmoid_bce"]


def sigmoid_bce(real_logits, fake_logits, real_target=1.0, fake_target=0.0):
    """mean(softplus(x) − t·x) over the real logits plus the same over the fake ones: BCE with logits, both sides.

    real_logits, fake_logits: any shapes, fp32, fp16, bf16 or fp64, both alike; either may be None.
    real_target, fake_target: numbers in [0, 1]; 0.9 for the real ones is one-sided label smoothing.
    Returns a scalar, fp32 (fp64 for fp64 logits); finite for every finite logit; the mean of an empty side is nan, as
    torch's. Differentiable twice. Autocast leaves it alone: sums are in fp32 whatever the logits.
    Raises ValueError or TypeError that names the argument. Goodfellow et al. 2014; Salimans et al. 2016, section 3.4.
    """
    return ops.sigmoid_bce.sigmoid_bce(real_logits, fake_logits, real_target, fake_target)


def conv_transpose_bn_relu(
    x, weight, bias=None, bn_weight=None, bn_bias=None, running_mean=None, running_var=None, training=False,
    momentum=0.1, eps=1e-5, stride=1, padding=0, output_padding=0, activation="relu", negative_slope=0.2,
):  # fmt: skip
    """y = act(batch_norm(conv_transpose2d(x, weight) + bias)), [N, C_out, H', W'].

    x [N, C_in, H, W]; weight [C_in, C_out, kH, kW]; bias, bn_weight, bn_bias, running_mean, running_var [C_out].
    Without ``bn_weight`` there is no batch normalisation. In training, or without running statistics, the batch's
    own mean and variance are used, and running statistics that are given are updated in place with ``momentum``.
    ``activation`` is "relu", "leaky_relu" (with ``negative_slope``), "tanh" or None.
    Raises ValueError for another activation.
    """
    return reference.conv_transpose_bn_relu(
        x, weight, bias, bn_weight, bn_bias, running_mean, running_var, training, momentum, eps, stride, padding,
        output_padding, activation, negative_slope,
    )  # fmt: skip


def conv_act(
    x, weight, bias=None, bn_weight=None, bn_bias=None, running_mean=None, running_var=None, training=False,
    momentum=0.1, eps=1e-5, stride=1, padding=0, activation="leaky_relu", negative_slope=0.2,
):  # fmt: skip
    """y = act(batch_norm(conv2d(x, weight) + bias)), [N, C_out, H', W']; weight [C_out, C_in, kH, kW].

    The other arguments are those of :func:`conv_transpose_bn_relu`.
    """
    return reference.conv_act(
        x, weight, bias, bn_weight, bn_bias, running_mean, running_var, training, momentum, eps, stride, padding,
        activation, negative_slope,
    )  # fmt: skip


def pairwise_l1(m, others=None):
    """Minibatch discrimination (Salimans et al. 2016): o[i, b] = Σ_j exp(−‖M[i, b] − others[j, b]‖₁), [R, nk].

    m [R, nk, kd]; others [B, nk, kd] of the same dtype, or None: m itself, and the sum includes j = i, as the paper's
    does. One rank's rows against the gathered rows of all ranks: ``others`` are all of them. fp32, fp16, bf16 or fp64;
    sums are in fp32 and the result in the dtype of m, also under autocast. Differentiable twice in both, the
    subgradient of |·| at 0 being 0; memory is O((R + B)·nk·kd) except in fp64, which goes through the reference.
    Raises ValueError or TypeError that names the argument. arXiv:1606.03498, section 3.2.
    """
    return ops.pairwise_l1.pairwise_l1(m, others)
