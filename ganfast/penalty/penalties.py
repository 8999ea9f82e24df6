"""Gradient penalties on a critic: scalars that take part in any loss, at the cost of first-order code."""

import warnings
from functools import partial

import torch
from torch import Tensor, nn

from ganfast import functional
from ganfast.errors import NonFiniteError
from ganfast.ops import _checks
from ganfast.ops._registry import launches
from ganfast.penalty.choice import prefers_autograd
from ganfast.penalty.engine import Run, autocast_dtype
from ganfast.penalty.program import program_of, uncompiled
from ganfast.penalty.rules import NoRuleError

_WARNED: set = set()


def gradient_penalty(
    critic, real, fake, weight=10.0, target=1.0, one_sided=False, eps=None, inputs=(), *, strict=False
):  # fmt: skip
    """P = (λ/B) Σ_i (‖∇D(x̂_i)‖₂ − target)², x̂_i = ε_i·real_i + (1 − ε_i)·fake_i: the penalty of WGAN-GP, a scalar.

    critic     a module: samples [B, ...] and ``inputs`` → scores [B] or [B, k] (their sum is derived), or some
    real, fake [B, ...] of one shape, dtype (fp32, fp16, bf16, fp64) and device
    weight     λ;  target  1 in the paper;  one_sided  max(0, ‖∇D‖ − target)² instead (Petzka et al. 2018)
    eps        ε [B], fp32 (fp64 for fp64); without it ε ~ U[0, 1), one per sample, is drawn on the device
    inputs     further arguments of the critic, such as labels: constants of the penalty
    strict     raise NoRuleError for a critic with a layer that has no rule, instead of taking double backward

    The norm is over all dimensions of a sample, in fp32; where it is 0, so is its derivative. Returns fp32 (fp64 for
    fp64). ``backward`` gives the exact gradients of the critic's parameters, those of torch's double backward, without
    its cost (docs/gradient_penalty.md), and those of real and fake where they require grad (detach fakes in a critic's
    update). Under autocast the critic runs in its dtype. The penalty cannot be derived twice: it says so. Where samples
    see each other (BatchNorm in training, minibatch layers) a sample's score has no gradient of its own; that of the
    sum is taken, as everywhere. A critic with hooks takes double backward.
    Raises ValueError or TypeError that names the argument. Gulrajani et al. 2017, arXiv:1704.00028.
    """
    x = functional.interpolate(real, fake, eps)
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
    x = functional.interpolate(real, fake, eps)
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
    x = functional.interpolate(real, moved, eps)
    return _penalty(critic, x, weight, "two_sided", target, inputs, strict)[0]


# --- one penalty ------------------------------------------------------------------------------------------------------


def unwrapped(critic) -> nn.Module:
    """The critic within DistributedDataParallel or torch.compile; raises for what is no critic."""
    if not isinstance(critic, nn.Module):
        raise TypeError(f"critic: got {type(critic).__name__}, needs a torch.nn.Module")
    if isinstance(critic, nn.parallel.DistributedDataParallel):
        return unwrapped(critic.module)
    original = getattr(critic, "_orig_mod", None)
    critic = critic if original is None else original
    if next(critic.parameters(), None) is None:
        raise ValueError("critic: has no parameters, needs some that a penalty can train")
    return critic


def find_program(critic: nn.Module, inputs: tuple, strict: bool):
    """The critic's program, or None with a warning (once for each layer) where a layer has no rule."""
    try:
        return program_of(critic, inputs)
    except NoRuleError as error:
        reason = str(error)
        if strict:
            raise NoRuleError(
                f"critic: {reason} has no rule; name one with ganfast.penalty.register, or leave out strict"
            ) from None
    if reason not in _WARNED:
        _WARNED.add(reason)
        warnings.warn(
            f"ganfast.penalty: {reason} has no rule, so {type(critic).__name__} takes torch's double backward "
            "(ganfast.penalty.register names a rule)",
            stacklevel=4,
        )
    return None


def check_scores(scores, batch: int) -> list:
    """The critic's results as a list, each [batch, ...] and, on the CPU, finite."""
    scores = list(scores) if isinstance(scores, (tuple, list)) else [scores]
    for s in scores:
        if not isinstance(s, Tensor) or not s.is_floating_point():
            raise TypeError(f"critic: returned {type(s).__name__}, needs scores, a floating-point tensor [batch, ...]")
        if s.shape[:1] != (batch,):
            raise ValueError(f"critic: returned shape {tuple(s.shape)} for {batch} samples, needs [{batch}, ...]")
        waits = s.device.type == "cpu" and not launches(s.device) and not torch.compiler.is_compiling()
        if waits and not bool(s.detach().isfinite().all()):
            raise NonFiniteError("critic: returned a value that is not finite; look at its weights and its input")
    return scores


def read_weights(program) -> list:
    """The weights of each call, once; results of parametrizations with their graph."""
    return [tuple(node.rule.weights()) for node in program.nodes]


@uncompiled  # the sweeps run as they are: autograd's functions and torch.fx are not for the compiler
def _penalty(critic, x, weight, kind, target, inputs, strict, name="real"):
    """(P, norms) at x."""
    _checks.samples(name, x)
    critic = unwrapped(critic)
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    program = find_program(critic, inputs, strict)
    phi = (weight, kind, target)
    if program is None:
        return _double_backward(critic, x, phi, inputs)

    def differentiated(way):
        penalty, _ = way()
        if penalty.requires_grad:
            torch.autograd.grad(penalty, [p for p in critic.parameters() if p.requires_grad], allow_unused=True)

    ways = partial(_by_sweeps, program, x, phi, inputs), partial(_double_backward, critic, x, phi, inputs)
    autograd = prefers_autograd(critic, program, "penalty", x, *(partial(differentiated, way) for way in ways))
    return ways[autograd]()


def _by_sweeps(program, x, phi, inputs):
    weights = read_weights(program)
    flat = [w for ws in weights for w in ws]
    return _Penalty.apply(program, phi, inputs, autocast_dtype(x.device), [len(ws) for ws in weights], x, *flat)


def _double_backward(critic, x, phi, inputs):
    derived = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        inputs = [i.detach() if isinstance(i, Tensor) else i for i in inputs]
        scores = check_scores(critic(x, *inputs), x.shape[0])
        total = sum(s.sum(dtype=_checks.sum_dtype(s)) for s in scores)
        (g,) = torch.autograd.grad(total, x, create_graph=derived)
        penalty, norms, _ = functional.gradient_penalty_terms(g, *phi)
    return penalty if derived else penalty.detach(), norms.detach()


class _Penalty(torch.autograd.Function):
    """Forward and reverse sweeps give the value; tangent and adjoint sweeps the gradients, where they are asked for."""

    @staticmethod
    def forward(ctx, program, phi, inputs, dtype, counts, x, *flat):
        weights, flat = [], iter(flat)
        for count in counts:
            weights.append([next(flat) for _ in range(count)])
        run = Run(program, weights, dtype)
        with torch.autocast(x.device.type, enabled=False):
            scores = run.forward(x.detach(), *inputs)
            check_scores(scores, x.shape[0])
            seed = torch.ones_like(scores) if isinstance(scores, Tensor) else [torch.ones_like(s) for s in scores]
            g = run.reverse(seed)
            if g is None:
                g = torch.zeros_like(x)
            penalty, norms, seed = functional.gradient_penalty_terms(g.to(_checks.sum_dtype(x)), *phi)
        ctx.run, ctx.counts, ctx.kind = run, counts, x.dtype
        held = [i for i in inputs if isinstance(i, Tensor)]
        ctx.save_for_backward(seed, x, *[w for ws in weights for w in ws], *held)  # backward notices what was changed
        ctx.mark_non_differentiable(norms)
        return penalty, norms

    @staticmethod
    def backward(ctx, cotangent, _):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "ganfast.gradient_penalty has no second derivative: call backward() without create_graph"
            )
        seed = ctx.saved_tensors[0]
        flags = iter(ctx.needs_input_grad[6:])
        need = [[next(flags) for _ in range(count)] for count in ctx.counts]
        run, at_x = ctx.run, ctx.needs_input_grad[5]
        run.begin()
        with torch.autocast(seed.device.type, enabled=False):
            run.tangent((seed * cotangent).to(ctx.kind), need)  # a loss scale comes before the rounding
            dx = run.adjoint(need, at_x)
        if at_x and dx is None:
            dx = torch.zeros_like(seed, dtype=ctx.kind)
        gradients = [g for mine in run.gradients for g in mine]
        return None, None, None, None, None, dx, *gradients
