"""The critic's part of a WGAN-GP step in one pass: loss and penalty share forward, reverse and weight gradients."""

from typing import NamedTuple

import torch
from torch import Tensor

from ganfast import functional
from ganfast.ops import _checks
from ganfast.penalty import double_backward, penalties
from ganfast.penalty.critics import between, constants, uncompiled, unwrapped
from ganfast.penalty.forward import forward, walks
from ganfast.penalty.plan import Plan, failed, plan_for
from ganfast.penalty.rules import NoRuleError, NotMergedError
from ganfast.penalty.scores import check_scores, mean


class WGANGPStep(NamedTuple):
    """What a step found: scalars on the device, fp32 (fp64 for fp64), without a graph."""

    loss: Tensor  # penalty − wasserstein
    wasserstein: Tensor  # mean D(real) − mean D(fake)
    penalty: Tensor
    gradient_norm: Tensor  # mean ‖∇D(x̂_i)‖


def wgan_gp_step(
    critic, real, fake, weight=10.0, target=1.0, one_sided=False, eps=None, inputs=(), *, scale=None, strict=False
):  # fmt: skip
    """Adds ∂/∂θ (mean D(fake) − mean D(real) + penalty) to ``.grad`` of the critic's parameters; a :class:`WGANGPStep`.

    Arguments as :func:`ganfast.gradient_penalty`; ``inputs`` serve real, fake and x̂; mean D is over all scores.
    ``scale``, a number above 0 or a 0-d tensor on the device (``GradScaler``'s), multiplies the gradients, from their
    seeds on, so that those of fp16 do not underflow; what is returned stays unscaled.
    A critic whose calls all merge (docs/gradient_penalty.md) takes [real; fake; x̂] as one batch: its weights are read
    once (one power iteration of a spectral norm), each BatchNorm normalises and counts the three apart, and each layer
    has one weight gradient, or two below one that is curved. Any other takes real and fake through autograd, one after
    the other, and x̂ through :func:`ganfast.gradient_penalty`; or all of it takes autograd, where that is faster. Real
    and fake get no gradients. It is first-order code: torch.compile takes it whole for an nn.Sequential that merges.
    Hooks of DistributedDataParallel do not run: all-reduce afterwards.
    Raises ValueError or TypeError that names the argument. Gulrajani et al. 2017, algorithm 1.
    """
    if torch.compiler.is_compiling() and (inputs or not walks(unwrapped(critic))):
        return _uncompiled(critic, real, fake, weight, target, one_sided, eps, inputs, scale=scale, strict=strict)
    critic, inputs = unwrapped(critic), constants(inputs)
    with torch.no_grad():
        batches = [b.detach() for b in (real, fake, between(real, fake, eps))]
    if not real.shape[0]:
        raise ValueError("real: got an empty batch, needs a sample")
    scale = _checked_scale(scale, real)
    phi = (weight, "one_sided" if one_sided else "two_sided", target)
    if torch.compiler.is_compiling():
        return _merged(critic, batches, phi, scale)[0]
    return _planned(critic, batches, phi, inputs, scale, strict)


def _planned(critic, batches, phi, inputs, scale, strict):
    ways = {
        "merged": lambda last: _merged(critic, list(batches), phi, scale, last, into_grad=False)[1],
        "sweeps": lambda last: _in_parts(critic, batches, phi, inputs, scale, Plan("sweeps", last), into_grad=False)[1],
        "autograd": lambda last: _together(critic, batches, phi, inputs, scale, into_grad=False),
    }
    if inputs:
        del ways["merged"]
    for _ in range(2):
        plan = plan_for(critic, "step", batches[0], inputs, strict, ways)
        if plan.way == "autograd":
            break
        if plan.way == "sweeps":
            return _in_parts(critic, batches, phi, inputs, scale, plan, strict)[0]
        try:
            return _merged(critic, list(batches), phi, scale, plan.channels_last)[0]
        except (NoRuleError, NotMergedError) as error:
            failed(critic, plan, strict and isinstance(error, NoRuleError), error)
    return _together(critic, batches, phi, inputs, scale)


_uncompiled = uncompiled(wgan_gp_step)  # what the compiler cannot take


def _checked_scale(scale, real):
    """A number, or a 0-d tensor of the dtype of sums: GradScaler's first is too large for fp16."""
    if isinstance(scale, Tensor):
        if scale.dim() or not scale.is_floating_point() or scale.device != real.device:
            raise ValueError(
                f"scale: got a tensor of shape {tuple(scale.shape)}, {scale.dtype}, on {scale.device}, "
                f"needs one floating-point number, shape (), on {real.device}"
            )
        return scale.to(_checks.sum_dtype(real))
    if scale is None:
        return 1.0
    _checks.not_negative("scale", scale)
    if scale == 0:
        raise ValueError("scale: got 0, needs a number above 0")
    return float(scale)


@torch.enable_grad()
def _in_parts(critic, batches, phi, inputs, scale, plan, strict=False, into_grad=True):
    """Real and fake through autograd, x̂ through the sweeps; (the results, the tape)."""
    real, fake, x = batches
    derive = _into_grad if into_grad else double_backward.aside
    wasserstein = mean(check_scores(critic(real, *inputs))) - mean(check_scores(critic(fake, *inputs)))
    if wasserstein.requires_grad:  # at once: its graph is gone before the penalty's
        derive(-wasserstein * scale, critic)
    try:
        penalty, norms, tape = penalties.by_sweeps(critic, x, phi, inputs, plan.channels_last)
    except NoRuleError as error:
        if not into_grad:
            raise
        failed(critic, plan, strict, error)
        (penalty, norms), tape = double_backward.penalty(critic, x, phi, inputs), None  # the loss is in .grad already
    if penalty.requires_grad:
        derive(penalty * scale, critic)
    return _results(wasserstein.detach(), penalty.detach(), norms), tape


@torch.enable_grad()
def _together(critic, batches, phi, inputs, scale, into_grad=True):
    """All by autograd; real and fake in one call where no layer lets samples see each other."""
    real, fake, x = batches
    if not inputs and walks(critic):
        of_real, of_fake = check_scores(critic(torch.cat([real, fake]))).chunk(2)
    else:
        of_real, of_fake = check_scores(critic(real, *inputs)), check_scores(critic(fake, *inputs))
    wasserstein = mean(of_real) - mean(of_fake)
    penalty, norms = double_backward.penalty(critic, x, phi, inputs)
    (_into_grad if into_grad else double_backward.aside)((penalty - wasserstein) * scale, critic)
    return _results(wasserstein.detach(), penalty.detach(), norms)


def _into_grad(loss, critic):
    if loss.requires_grad:
        loss.backward()


def _results(wasserstein, penalty, norms):
    return WGANGPStep(penalty - wasserstein, wasserstein, penalty, norms.mean())


def _merged(critic, batches, phi, scale, channels_last=False, into_grad=True):
    """Real, fake and x̂ as one batch; (the results, the tape)."""
    batch, device, kind = batches[0].shape[0], batches[0].device, batches[0].dtype
    together = torch.cat(batches)
    batches.clear()
    tape, scores = forward(critic, together, (), 2 * batch, channels_last)
    del together
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        check_scores(scores)
        root = scale**0.5  # d of x̂ and t multiply each other: each takes its half of the scale
        seed = torch.empty_like(scores)
        seed[:batch] = -3.0 / scores.numel() * scale
        seed[batch : 2 * batch] = 3.0 / scores.numel() * scale
        seed[2 * batch :] = root
        of_loss, of_penalty = (None, seed) if tape.flat else (seed[: 2 * batch], seed[2 * batch :])
        g = tape.reverse(of_penalty)
        del seed, of_penalty
        penalty, norms, v = functional.gradient_penalty_terms(g.to(_checks.sum_dtype(g)) / root, *phi)
        del g
        need = [[w.requires_grad for w in node.weights] for node in tape.nodes]
        tape.tangent((v * root).to(kind), need)
        del v
        if of_loss is not None:
            tape.adjoint(need, seed=of_loss)
        wasserstein = mean(scores[:batch]) - mean(scores[batch : 2 * batch])
        if into_grad:
            _accumulate([node.weights for node in tape.nodes], tape.gradients)
    return _results(wasserstein, penalty, norms), tape


def _accumulate(weights, gradients):
    """Into ``.grad`` of parameters, and through the graph of what was made of parameters."""
    made, theirs = [], []
    for ws, gs in zip(weights, gradients):
        for w, g in zip(ws, gs):
            if g is None:
                continue
            if not w.is_leaf:
                made.append(w)
                theirs.append(g)
            elif w.grad is None:  # in the order of w in memory, as autograd's are
                w.grad = g if g.stride() == w.stride() else torch.empty_like(w).copy_(g)
            else:
                w.grad += g
    if made:
        torch.autograd.backward(made, theirs)
