"""The critic's part of a WGAN-GP step in one pass: loss and penalty share forward, reverse and weight gradients."""

from typing import NamedTuple

import torch
from torch import Tensor

from ganfast import functional
from ganfast.ops import _checks
from ganfast.penalty.choice import prefers_autograd
from ganfast.penalty.engine import Run, autocast_dtype
from ganfast.penalty.penalties import _double_backward, _penalty, check_scores, find_program, read_weights, unwrapped
from ganfast.penalty.program import uncompiled, walks
from ganfast.penalty.rules import MixedRowsError


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

    Arguments as :func:`ganfast.gradient_penalty`; ``inputs`` serve real, fake and x̂; the critic returns one tensor.
    ``scale``, a number above 0 or a 0-d tensor on the device (``GradScaler``'s), multiplies the gradients, from their
    seeds on, so that those of fp16 do not underflow; what is returned stays unscaled.
    A critic whose layers all merge (docs/gradient_penalty.md) takes [real; fake; x̂] as one batch: its weights are read
    once (one power iteration of a spectral norm), and each layer has one weight gradient, or two below one that is
    curved. Any other takes real and fake through autograd, one after the other, and x̂ through
    :func:`ganfast.gradient_penalty`. Real and fake get no gradients. It is first-order code: torch.compile takes it
    whole for an nn.Sequential that merges. Hooks of DistributedDataParallel do not run: all-reduce afterwards.
    Raises ValueError or TypeError that names the argument. Gulrajani et al. 2017, algorithm 1.
    """
    if torch.compiler.is_compiling() and (inputs or not walks(unwrapped(critic))):
        return _uncompiled(critic, real, fake, weight, target, one_sided, eps, inputs, scale=scale, strict=strict)
    critic = unwrapped(critic)
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    with torch.no_grad():
        batches = [real, fake, functional.interpolate(real, fake, eps)]
    if not real.shape[0]:
        raise ValueError("real: got an empty batch, needs a sample")
    scale = _checked_scale(scale, real)
    program = find_program(critic, inputs, strict)
    phi = (weight, "one_sided" if one_sided else "two_sided", target)
    if program is None or not program.merges:
        return _in_parts(critic, batches, phi, inputs, scale)
    try:
        if _prefers_autograd(critic, program, batches, phi, inputs, scale):
            return _together(critic, batches, phi, inputs, scale)
        return _merged(program, batches, phi, scale)
    except MixedRowsError:
        program.merges = False
        return _in_parts(critic, batches, phi, inputs, scale)


def _prefers_autograd(critic, program, batches, phi, inputs, scale):
    return prefers_autograd(
        critic, program, "step", batches[0],
        lambda: _merged(program, list(batches), phi, scale, into_grad=False),
        lambda: _together(critic, batches, phi, inputs, scale, into_grad=False),
    )  # fmt: skip


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


@uncompiled
@torch.enable_grad()
def _in_parts(critic, batches, phi, inputs, scale):
    real, fake, x = (b.detach() for b in batches)
    batch = real.shape[0]
    of_real, of_fake = check_scores(critic(real, *inputs), batch), check_scores(critic(fake, *inputs), batch)
    if len(of_real) != 1:
        raise ValueError(f"critic: returned {len(of_real)} tensors, needs one in a step")
    wasserstein = _mean(of_real[0]) - _mean(of_fake[0])
    if wasserstein.requires_grad:  # at once: its graph is gone before the penalty's
        (-wasserstein * scale).backward()
    penalty, norms = _penalty(critic, x, *phi, inputs, False)
    if penalty.requires_grad:
        (penalty * scale).backward()
    return _results(wasserstein.detach(), penalty.detach(), norms)


@uncompiled
@torch.enable_grad()
def _together(critic, batches, phi, inputs, scale, into_grad=True):
    """By autograd, real and fake in one pass: no layer mixes samples."""
    real, fake, x = (b.detach() for b in batches)
    batch = real.shape[0]
    (scores,) = check_scores(critic(torch.cat([real, fake]), *inputs), 2 * batch)
    wasserstein = _mean(scores[:batch]) - _mean(scores[batch:])
    penalty, norms = _double_backward(critic, x, phi, inputs)
    loss = (penalty - wasserstein) * scale
    if into_grad:
        loss.backward()
    else:
        torch.autograd.grad(loss, [p for p in critic.parameters() if p.requires_grad], allow_unused=True)
    return _results(wasserstein.detach(), penalty.detach(), norms)


def _mean(scores):
    return scores.mean(dtype=torch.float64 if scores.dtype == torch.float64 else torch.float32)


def _results(wasserstein, penalty, norms):
    return WGANGPStep(penalty - wasserstein, wasserstein, penalty, norms.mean())


def _merged(program, batches, phi, scale, into_grad=True):
    batch, device, kind = batches[0].shape[0], batches[0].device, batches[0].dtype
    with torch.enable_grad():  # for the graph of parametrizations
        weights = read_weights(program)
    dtype = autocast_dtype(device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        run = Run(program, [[w.detach() for w in ws] for ws in weights], dtype, start=2 * batch)
        together = torch.cat(batches)
        scores = run.forward(together)
        batches.clear()
        del together
        check_scores(scores, 3 * batch)
        root = scale**0.5  # d of x̂ and t multiply each other: each takes its half of the scale
        seed = torch.empty_like(scores)
        seed[:batch] = -3.0 / scores.numel() * scale
        seed[batch : 2 * batch] = 3.0 / scores.numel() * scale
        seed[2 * batch :] = root
        of_loss, of_penalty = (None, seed) if program.flat else (seed[: 2 * batch], seed[2 * batch :])
        g = run.reverse(of_penalty)
        del seed, of_penalty
        penalty, norms, v = functional.gradient_penalty_terms(g.to(_checks.sum_dtype(g)) / root, *phi)
        del g
        need = [[w.requires_grad for w in ws] for ws in weights]
        run.tangent((v * root).to(kind), need)
        del v
        if of_loss is not None:
            run.adjoint(need, seed=of_loss)
        wasserstein = _mean(scores[:batch]) - _mean(scores[batch : 2 * batch])
        if into_grad:
            _accumulate(weights, run.gradients)
    return _results(wasserstein, penalty, norms)


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
