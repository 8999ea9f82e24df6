"""Gradient penalties on a critic: scalars that take part in any loss, at the cost of first-order code."""

import torch

from ganfast import functional
from ganfast.ops import _checks
from ganfast.penalty import double_backward
from ganfast.penalty.critics import between, constants, uncompiled, unwrapped
from ganfast.penalty.forward import forward
from ganfast.penalty.plan import failed, plan_for
from ganfast.penalty.rules import NoRuleError
from ganfast.penalty.scores import check_scores


def gradient_penalty(
    critic, real, fake, weight=10.0, target=1.0, one_sided=False, eps=None, inputs=(), *, strict=False
):  # fmt: skip
    """P = (λ/B) Σ_i (‖∇D(x̂_i)‖₂ − target)², x̂_i = ε_i·real_i + (1 − ε_i)·fake_i: the penalty of WGAN-GP, a scalar.

    critic     a module, or any function: samples [B, ...] and ``inputs`` → scores of any shape, whose sum is
               differentiated; of several results the first are the scores (``lambda x: critic(x)[1]`` for others)
    real, fake [B, ...] of one shape, dtype (fp32, fp16, bf16, fp64) and device
    weight     λ;  target  1 in the paper;  one_sided  max(0, ‖∇D‖ − target)² instead (Petzka et al. 2018)
    eps        ε [B] or [B, 1, ...], fp32 (fp64 for fp64); without it ε ~ U[0, 1), one per sample, drawn on the device
    inputs     further arguments of the critic, such as labels: constants of the penalty
    strict     take the sweeps whatever is faster, and raise NoRuleError for a critic that they cannot take

    The norm is over all dimensions of a sample, in fp32; where it is 0, so is its derivative. Returns fp32 (fp64 for
    fp64). ``backward`` gives the exact gradients of the critic's parameters, those of torch's double backward, without
    its cost (docs/gradient_penalty.md), and those of real and fake where they require grad (detach fakes in a critic's
    update). Under autocast the critic runs in its dtype. The penalty cannot be differentiated twice: it says so. Where
    samples see each other (BatchNorm in training, minibatch layers) a sample's score has no gradient of its own; that
    of the sum is taken, as everywhere. What is fastest for a critic and a shape is found at the first call: torch's own
    double backward may be (``ganfast.penalty.explain``).
    Raises ValueError or TypeError that names the argument. Gulrajani et al. 2017, arXiv:1704.00028.
    """
    x = between(real, fake, eps)
    return _penalty(critic, x, weight, "one_sided" if one_sided else "two_sided", target, inputs, strict)[0]


def lipschitz(critic, real, fake, weight=10.0, target=1.0, eps=None, inputs=(), *, strict=False):
    """The one-sided penalty of WGAN-LP: (λ/B) Σ max(0, ‖∇D(x̂_i)‖ − target)² (Petzka et al. 2018, arXiv:1709.08894).

    Arguments as :func:`gradient_penalty`.
    """
    return gradient_penalty(critic, real, fake, weight, target, True, eps, inputs, strict=strict)


def r1(critic, real, weight=10.0, inputs=(), *, strict=False):
    """(γ/2B) Σ ‖∇D(real_i)‖², γ = weight: the penalty at real samples of Mescheder et al. 2018, arXiv:1801.04406.

    The other arguments as :func:`gradient_penalty`.
    """
    return _penalty(critic, real, weight, "zero_centered", None, inputs, strict, "real")[0]


def r2(critic, fake, weight=10.0, inputs=(), *, strict=False):
    """(γ/2B) Σ ‖∇D(fake_i)‖², γ = weight: :func:`r1` at generated samples (Mescheder et al. 2018)."""
    return _penalty(critic, fake, weight, "zero_centered", None, inputs, strict, "fake")[0]


def zero_centered(critic, real, fake, weight=10.0, eps=None, inputs=(), *, strict=False):
    """(γ/2B) Σ ‖∇D(x̂_i)‖² between real and fake samples (Thanh-Tung et al. 2019, arXiv:1902.03984).

    Arguments as :func:`gradient_penalty`, γ = weight.
    """
    x = between(real, fake, eps)
    return _penalty(critic, x, weight, "zero_centered", None, inputs, strict)[0]


def dragan(critic, real, weight=10.0, target=1.0, scale=0.5, eps=None, inputs=(), *, strict=False):
    """(λ/B) Σ (‖∇D(x̂_i)‖ − target)² around real samples (Kodali et al. 2017, arXiv:1705.07215).

    x̂ = real + (1 − ε)·u, u uniform in [0, scale·s) for each number, s the standard deviation of the batch's numbers, as
    in the authors' code. The other arguments as :func:`gradient_penalty`.
    """
    _checks.samples("real", real)
    with torch.no_grad():
        deviation = real.double().std() if real.dtype == torch.float64 else real.float().std()
        moved = real + (scale * deviation * torch.rand_like(real)).to(real.dtype)
    x = between(real, moved, eps)
    return _penalty(critic, x, weight, "two_sided", target, inputs, strict)[0]


# --- one penalty ------------------------------------------------------------------------------------------------------


@uncompiled  # autograd's functions are not for the compiler
def _penalty(critic, x, weight, kind, target, inputs, strict, name="real"):
    """(P, norms) at x."""
    _checks.samples(name, x)
    critic, inputs, phi = unwrapped(critic), constants(inputs), (weight, kind, target)
    ways = {
        "sweeps": lambda last: _tried(by_sweeps(critic, x.detach(), phi, inputs, last)),
        "autograd": lambda last: double_backward.aside(
            double_backward.penalty(critic, x.detach(), phi, inputs)[0], critic
        ),
    }
    for _ in range(2):
        plan = plan_for(critic, "penalty", x, inputs, strict, ways)
        if plan.way == "autograd":
            break
        try:
            return by_sweeps(critic, x, phi, inputs, plan.channels_last)[:2]
        except NoRuleError as error:
            failed(critic, plan, strict, error)
    return double_backward.penalty(critic, x, phi, inputs)


def _tried(found):
    """The gradients are made, too; gives the tape."""
    penalty, _, tape = found
    if penalty.requires_grad:
        torch.autograd.grad(penalty, [w for w in tape.weights() if w.requires_grad], allow_unused=True)
    return tape


def by_sweeps(critic, x, phi, inputs, channels_last):
    """(P, norms, tape)."""
    tape, scores = forward(critic, x.detach(), inputs, channels_last=channels_last)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        g = tape.reverse(torch.ones_like(check_scores(scores)))
        g = torch.zeros_like(x) if g is None else g
        made = functional.gradient_penalty_terms(g.to(_checks.sum_dtype(x)), *phi)
    return *_Penalty.apply(tape, made, x, *tape.weights()), tape


class _Penalty(torch.autograd.Function):
    """The value is made; the tangent and adjoint sweeps make the gradients, where they are asked for."""

    @staticmethod
    def forward(ctx, tape, made, x, *weights):
        penalty, norms, seed = made
        ctx.tape, ctx.kind = tape, x.dtype
        ctx.save_for_backward(seed, x, *weights)  # backward notices what was changed
        ctx.mark_non_differentiable(norms)
        return penalty, norms

    @staticmethod
    def backward(ctx, cotangent, _):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "ganfast.gradient_penalty has no second derivative: call backward() without create_graph"
            )
        seed = ctx.saved_tensors[0]
        tape, flags = ctx.tape, iter(ctx.needs_input_grad[3:])
        need = [[next(flags) for _ in node.weights] for node in tape.nodes]
        at_x = ctx.needs_input_grad[2]
        with torch.autocast(seed.device.type, enabled=False):
            tape.tangent((seed * cotangent).to(ctx.kind), need)  # a loss scale comes before the rounding
            dx = tape.adjoint(need, at_x)
        if at_x and dx is None:
            dx = torch.zeros_like(seed, dtype=ctx.kind)
        return None, None, dx, *[g for mine in tape.gradients for g in mine]
