"""S trainings of one GAN on points as one: their networks are stacked, [S, ...] each, and share no number.

Activations lie feature-major, [S, features, B]. A layer of all S is then one `baddbmm` with torch's own weights
[S, out, in], BatchNorm is torch's own over S·features channels of one sample of length B, maxout runs along the batch,
and minibatch discrimination takes S·kernels kernels. Losses are sums over the S; Adam is elementwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganfast.functional import pairwise_l1
from ganfast.models.mlp import Discriminator, Generator, Maxout, initialize
from ganfast.nn import MinibatchDiscrimination
from ganfast.objectives import discriminator_bce, generator_non_saturating, relativistic_pairing, wasserstein

Parameters = dict[str, Tensor]
Network = Callable[[Tensor], Tensor]


class Stacked:
    """S networks of one architecture (``mlp``'s, by their ``layers``) as one: x [S, D, B] → [S, outputs, B]."""

    def __init__(self, networks: list[nn.Module], packing: int = 1):
        self.layers, self.packing, self.count = networks[0].layers, packing, len(networks)
        self.parameters, self.buffers = torch.func.stack_module_state(networks)
        self.mixes = any(isinstance(layer, MinibatchDiscrimination) for layer in self.layers)

    def __call__(self, x: Tensor, parameters: Parameters | None = None, training: bool = True) -> Tensor:
        p = self.parameters if parameters is None else parameters
        if self.packing > 1:  # as architectures.Packed: neighbours are packed
            x = x.unflatten(2, (-1, self.packing)).permute(0, 3, 1, 2).flatten(1, 2)
        for i, layer in enumerate(self.layers):
            if isinstance(layer, nn.Linear):
                x = affine(x, p, f"layers.{i}")
            elif isinstance(layer, Maxout):
                x = affine(x, p, f"layers.{i}.linear").unflatten(1, (-1, layer.pieces))
                x = _Largest.apply(x)
            elif isinstance(layer, nn.BatchNorm1d):
                x = self.batch_norm(x, p, f"layers.{i}", layer, training)
            elif isinstance(layer, MinibatchDiscrimination):
                m = p[f"layers.{i}.T"].mT @ x  # [S, kernels·dim, B]
                m = m.unflatten(1, (-1, layer.kernel_dim)).permute(3, 0, 1, 2).flatten(1, 2)  # [B, S·kernels, dim]
                x = torch.cat([x, pairwise_l1(m).unflatten(1, (self.count, -1)).permute(1, 2, 0)], 1)
            else:
                x = layer(x)
        return x

    def batch_norm(self, x, p, name, layer, training):
        mean, variance = (self.buffers[f"{name}.running_{what}"].view(-1) for what in ("mean", "var"))
        weight, bias = (p[f"{name}.{what}"].flatten() for what in ("weight", "bias"))
        flat = x.reshape(1, -1, x.shape[2])  # [1, S·features, B]
        return F.batch_norm(flat, mean, variance, weight, bias, training, layer.momentum, layer.eps).view_as(x)

    def tensors(self) -> list[Tensor]:
        return [*self.parameters.values(), *(b for b in self.buffers.values() if b.is_floating_point())]


def affine(x: Tensor, p: Parameters, name: str) -> Tensor:
    weight, bias = p[f"{name}.weight"], p.get(f"{name}.bias")
    return weight @ x if bias is None else torch.baddbmm(bias[:, :, None], weight, x)


class _Largest(torch.autograd.Function):
    """x [S, out, pieces, B] → its maxima over the pieces; the backward is one product with a mask, not amax's four."""

    @staticmethod
    def forward(ctx, x):
        largest = x.amax(2, keepdim=True)
        ctx.save_for_backward(x, largest)
        return largest.squeeze(2)

    @staticmethod
    def backward(ctx, grad):
        x, largest = ctx.saved_tensors
        return (x.detach() == largest.detach()) * grad.unsqueeze(2)


@dataclass(frozen=True)
class Game:
    """What a row of the table plays, and with which rates of Adam; ``loss`` is gan, wgan-gp or r3gan."""

    loss: str = "gan"
    packing: int = 1
    kernels: int = 0  # of minibatch discrimination, 4 numbers each
    unroll: int = 0  # plain gradient steps of D that G looks ahead (Metz et al. 2017)
    unroll_lr: float = 0.1
    d_steps: int = 1
    penalty: float = 0.0  # λ of wgan-gp, γ of r3gan
    lr: float = 1e-4
    beta1: float = 0.8
    beta2: float = 0.999
    length: int = 1  # times the updates of other rows

    @property
    def updates(self) -> int:
        """Updates of D in a step, those that G looks ahead included."""
        return self.d_steps + self.unroll

    def networks(self, width: int, seed: int) -> tuple[nn.Module, nn.Module]:
        """G of ``width`` hidden units a layer and D of half as many, by the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            g = Generator(2, 2, width, batch_norm=self.loss != "r3gan")
            d = Discriminator(2 * self.packing, width // 2)
            if self.kernels:
                head = nn.Linear(width // 2 + self.kernels, 1)
                d.layers = nn.Sequential(*d.layers[:-1], MinibatchDiscrimination(width // 2, self.kernels, 4), head)
                initialize(head)
        return g, d

    def of_d(self, d: Network, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        """D's loss, a mean over samples and trainings; d: samples [S, 2, B] → scores [S, 1, B/packing]."""
        if self.kernels:
            scores = d(real).flatten(), d(fake).flatten()
        else:
            scores = [half.flatten() for half in d(torch.cat([real, fake], 2)).chunk(2, 2)]
        if self.loss == "gan":
            return discriminator_bce(*scores)
        if self.loss == "wgan-gp":
            norms = slopes(d, mix * real + (1 - mix) * fake).square().sum(1).sqrt()
            return self.penalty * (norms - 1).square().mean() - wasserstein(*scores)
        r1, r2 = slopes(d, torch.cat([real, fake], 2)).square().sum(1).chunk(2, 1)
        return relativistic_pairing(*scores) + self.penalty / 2 * (r1.mean() + r2.mean())

    def of_g(self, d: Network, real: Tensor, fake: Tensor) -> Tensor:
        """G's loss, a mean over samples and trainings."""
        scores = d(fake).flatten()
        if self.loss == "gan":
            return generator_non_saturating(scores)
        if self.loss == "wgan-gp":
            return -scores.mean()
        return relativistic_pairing(scores, d(real).flatten())

    def ahead(self, d: Stacked, real: Tensor, fake: Tensor) -> Network:
        """D after ``unroll`` more steps on this batch, as a function of G too."""
        p = d.parameters
        for _ in range(self.unroll):
            loss = self.of_d(partial(d, parameters=p), real, fake, None) * d.count
            grads = torch.autograd.grad(loss, tuple(p.values()), create_graph=True)
            p = {name: value - self.unroll_lr * grad for (name, value), grad in zip(p.items(), grads)}
        return partial(d, parameters=p)


def slopes(d: Network, x: Tensor) -> Tensor:
    """∇D at x [S, 2, B]."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(d(x).sum(), x, create_graph=True)[0]


class SideBySide:
    """Training of one network pair for each seed, on points [N, 2]; every seed has random numbers of its own."""

    def __init__(self, game: Game, points: Tensor, seeds: list[int], width: int, batch: int, ema_decay: float = 0.999):
        pairs = [game.networks(width, seed) for seed in seeds]
        self.game, self.points, self.batch, self.ema_decay = game, points, batch, ema_decay
        device = points.device
        self.g, self.average = (Stacked([g.to(device) for g, _ in pairs]) for _ in range(2))
        self.d = Stacked([d.to(device) for _, d in pairs], game.packing)
        self.random = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        adam = partial(torch.optim.Adam, lr=game.lr, betas=(game.beta1, game.beta2), fused=True)
        self.adam = {network: adam(list(network.parameters.values())) for network in (self.g, self.d)}

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Real samples and latents [S, 2, B], and where the gradient penalty looks [S, 1, B]."""
        size, where = self.batch, self.points.device
        drawn = [
            (self.points[torch.randint(len(self.points), (size,), generator=r, device=where)].T,
             torch.randn(2, size, generator=r, device=where), torch.rand(1, size, generator=r, device=where))
            for r in self.random
        ]  # fmt: skip
        return tuple(torch.stack(column) for column in zip(*drawn))

    def step(self, rate: float = 1.0) -> None:
        """One step of the game at ``rate`` times the learning rate."""
        game, d = self.game, self.d
        for adam in self.adam.values():
            adam.param_groups[0]["lr"] = rate * game.lr
        for _ in range(game.d_steps):
            real, z, mix = self.draw()
            fake = self.g(z)
            self.move(d, game.of_d(d, real, fake.detach(), mix))
        self.move(self.g, game.of_g(game.ahead(d, real, fake) if game.unroll else d, real, fake))

    def move(self, network: Stacked, loss: Tensor) -> None:
        """One step of Adam by the sum of all trainings' losses; ``backward`` lays gradients out as fused Adam needs."""
        self.adam[network].zero_grad()
        (loss * network.count).backward(inputs=list(network.parameters.values()))
        self.adam[network].step()

    def train(self, steps: int, rate: Callable[[float], float] = lambda progress: 1.0) -> None:
        """``rate`` of the share of steps that are done is the learning rate's factor."""
        for step in range(1, steps + 1):
            self.step(rate((step - 1) / steps))
            decay = min(self.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(self.average.tensors(), self.g.tensors(), 1 - decay)

    @torch.no_grad()
    def samples(self, count: int, seed: int) -> Tensor:
        """[S, count, 2] by the averaged generators in evaluation mode; the same latents for all."""
        z = torch.randn(2, count, generator=torch.Generator().manual_seed(seed)).to(self.points.device)
        return self.average(z.expand(self.g.count, 2, count), training=False).mT
