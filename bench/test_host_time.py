"""The host's time of eager calls, where few numbers leave the device idle, against torch's own calls (host.py).

    pytest bench/test_host_time.py --benchmark-only

The rows: "ganfast" as a person calls it, "kernels" with our kernels all the same, as large tensors and the warm-up of a
CUDA graph have them, "torch" what a user would write instead. Ratios are of torch's time over ganfast's: an operator is
to have 1/1.3 at least, a whole step 1/1.05.
"""

import functools

import frame
import pytest
import test_steps as steps
import torch
import torch.nn.functional as F
from frame import HOST_PLACES, Work

from ganfast import functional
from ganfast.ops import for_graph

OPERATOR, STEP = 1 / 1.3, 1 / 1.05  # of torch's time over ganfast's, at least
BOUND = 1e-4  # relative error, fp32


def of_graph(step):
    """step with the choices of a CUDA graph."""

    @functools.wraps(step)
    def run(*args):
        with for_graph():
            return step(*args)

    return run


# --- operators, forward and backward ----------------------------------------------------------------------------------


def activations(device, *shape):
    return torch.randn(shape, device=device).to(memory_format=torch.channels_last)


def batch_norm_inputs(device):
    return activations(device, 2, 8, 4, 4), *(torch.rand(8, device=device) + 0.5 for _ in range(2))


def convolution_inputs(device, transposed=False):
    weight = activations(device, *((4, 8) if transposed else (8, 4)), 4, 4)
    return activations(device, 2, 4, 4, 4), weight, *(torch.rand(8, device=device) + 0.5 for _ in range(2))


def logits(device):
    return torch.randn(64, device=device), torch.randn(64, device=device)


def torchs_loss(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))


def samples(device):
    return torch.randn(4, 3, 4, 4, device=device), torch.randn(4, 3, 4, 4, device=device), torch.rand(4, device=device)


def between(real, fake, epsilon):
    e = epsilon[:, None, None, None]
    return e * real + (1 - e) * fake


def torchs_penalty(g):
    return 10 * (g.flatten(1).norm(2, dim=1) - 1).square().mean()


def torchs_pairs(m):
    return torch.exp(-(m[None] - m[:, None]).abs().sum(3)).sum(1)


def torchs_generator_layer(x, w, gain, offset):
    return F.relu(F.batch_norm(F.conv_transpose2d(x, w, None, 2, 1), None, None, gain, offset, True))


OPERATORS = {  # name → (inputs, ganfast's, torch's)
    "batch_norm_act": (
        batch_norm_inputs,
        lambda y, gain, offset: functional.batch_norm_act(y, None, None, gain, offset, True),
        lambda y, gain, offset: F.relu(F.batch_norm(y, None, None, gain, offset, True)),
    ),
    "norm_act": (
        lambda device: batch_norm_inputs(device)[:1],
        lambda y: functional.norm_act(y, y.shape[1], activation="relu")[0],
        lambda y: F.relu(F.instance_norm(y)),
    ),
    "conv_bn_act": (
        convolution_inputs,
        lambda x, w, bias, _: functional.conv_bn_act(x, w, bias, stride=2, padding=1),
        lambda x, w, bias, _: F.leaky_relu(F.conv2d(x, w, bias, 2, 1), 0.2),
    ),
    "conv_transpose_bn_relu": (
        functools.partial(convolution_inputs, transposed=True),
        lambda x, w, *bn: functional.conv_transpose_bn_relu(x, w, None, *bn, training=True, stride=2, padding=1),
        torchs_generator_layer,
    ),
    "sigmoid_bce": (logits, functional.sigmoid_bce, torchs_loss),
    "interpolate": (samples, functional.interpolate, between),
    "gradient_penalty": (lambda device: samples(device)[:1], functional.gradient_penalty, torchs_penalty),
    "pairwise_l1": (lambda device: (torch.randn(4, 5, 3, device=device),), functional.pairwise_l1, torchs_pairs),
}  # fmt: skip


@pytest.mark.parametrize("row", ["ganfast", "torch", "kernels"])
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("place", HOST_PLACES)
def test_operator(measure, place, operator, row):
    make, ours, theirs = OPERATORS[operator]
    mine = step_of(operator, ours)
    rows = {"ganfast": mine, "torch": step_of(operator, theirs), "kernels": of_graph(mine)}
    measure(
        rows,
        make=functools.partial(make, measure.device),
        check=frame.close(BOUND, step_of(operator, theirs)),
        work=Work(launches=2),
    )


def step_of(operator, function):
    """The function and the gradients of its inputs; of interpolate's ε and what a layer leaves out there are none."""
    constant = {"interpolate": 1, "conv_bn_act": 1}.get(operator, 0)

    def step(*args):
        split = len(args) - constant
        leaves = [a.detach().requires_grad_() for a in args[:split]]
        out = function(*leaves, *args[split:])
        return out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))

    return step


# --- steps ------------------------------------------------------------------------------------------------------------

STEPS = {
    "dcgan": (steps.dcgan, ()),
    "wgan-gp conv": (steps.critic_update, ("wgan-gp", "conv")),
    "wgan-gp resnet": (steps.critic_update, ("wgan-gp", "resnet")),
    "r1 conv": (steps.critic_update, ("r1", "conv")),
}  # fmt: skip
SIZE = (2, 2)  # width, batch: nothing that a device would feel


@pytest.mark.parametrize("row", ["ganfast", "torch", "kernels"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("place", HOST_PLACES)
def test_step(measure, place, step, row):
    make, kind = STEPS[step]
    of = {"ganfast": "ganfast", "torch": "tuned", "kernels": "ganfast"}
    rows = {
        name: steps.Step(make, of[name], "fp32", measure.device, *kind, *SIZE)
        for name in dict.fromkeys(["ganfast", row])
    }

    def check(losses):
        assert losses[0].isfinite().all()
        for made in rows.values():
            error = frame.distance(made.history, steps.eager_losses(make, measure.device, *kind, *SIZE))
            assert error <= steps.BOUNDS["fp32"], f"trains something else: losses {error:.2g} from eager's"

    work = Work(launches=100)
    measure({n: of_graph(s) if n == "kernels" else s for n, s in rows.items()}, make=tuple, check=check, work=work)
