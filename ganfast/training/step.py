"""One training step: ``d_steps`` updates of the discriminator, one of the generator, and the average."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganfast.data.feed import Feed
from ganfast.errors import NonFiniteError
from ganfast.recipes import Recipe
from ganfast.training import checkpoint
from ganfast.training.ema import Average
from ganfast.training.gradients import FlatGradients
from ganfast.training.precision import Precision

FACTORS: dict[str, Callable[[Tensor], Tensor]] = {  # of the learning rate, by the share of the run that is over
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + torch.cos(math.pi * share)) / 2,
}


class Step:
    """``step()`` trains: device operations over static memory, none of which waits for the device.

    So the same code runs as it is, under torch.compile, and as a CUDA graph. What changes from step to step is on the
    device: batches (``feed``, loaded before), the count of steps, learning rates, the loss scale, the state of random
    generators. Losses add up in ``sums``. Recipes get the step as an argument: ``autocast``, ``backward``, ``scale``
    and ``uniform`` are for them.

    Args:
        feed: real batches; its ``share`` says which part of the batch is this process's.
        lr_decay: "none", "linear" or "cosine": the learning rates fall to 0 over ``total`` steps.
        average: makes its argument the mean over all processes, in place.
    """

    def __init__(
        self,
        recipe: Recipe,
        networks: tuple[nn.Module, nn.Module, nn.Module],
        feed: Feed,
        precision: Precision,
        seed: int = 0,
        ema_decay: float = 0.999,
        lr_decay: str = "none",
        total: int = 1,
        average: Callable[[Tensor], None] = lambda numbers: None,
    ):
        self.recipe, self.feed, self.precision, self.average_ranks = recipe, feed, precision, average
        self.generator, self.discriminator, mean = networks
        device = feed.device
        self.gradients_g, self.gradients_d = FlatGradients(self.generator), FlatGradients(self.discriminator)
        self.optimizer_g, self.optimizer_d = recipe.optimizer(self.generator), recipe.optimizer(self.discriminator)
        self.average = Average(mean, self.generator, ema_decay)
        self.noise = torch.Generator(device).manual_seed(seed)
        self.rates = [_on_device(self.optimizer_g, device), _on_device(self.optimizer_d, device)]
        self.lr_decay, self.total = lr_decay, total
        self.count = torch.zeros((), device=device)  # of steps, exact up to 2^24
        self.columns = ("loss_d", "loss_g", *recipe.figures, "grad_norm_d", "grad_norm_g")
        self.sums = torch.zeros(len(self.columns) + 1, device=device)  # over steps; the last is how many
        self.generate, self.gradients_of_d, self.loss_of_g = (
            self.generator, recipe.discriminator_gradients, recipe.generator_loss,
        )  # fmt: skip

    def compile(self) -> None:
        """From now on the recipe's functions and the generator run under torch.compile."""
        self.generate = torch.compile(self.generator, dynamic=False)
        self.gradients_of_d = torch.compile(self.recipe.discriminator_gradients, dynamic=False)
        self.loss_of_g = torch.compile(self.recipe.generator_loss, dynamic=False)

    # -- saving ----------------------------------------------------------------------------------------------------

    def state(self) -> dict:
        """What the steps to come depend on, besides the networks and the position in the data."""
        return {
            "sums": self.sums,
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "noise": self.noise.get_state(),
            "precision": self.precision.state(),
        }

    def load_state(self, state: dict, count: int) -> None:
        """Take it up in place, after ``count`` steps."""
        checkpoint.load_optimizer(self.optimizer_g, state["optimizer_g"])
        checkpoint.load_optimizer(self.optimizer_d, state["optimizer_d"])
        self.noise.set_state(state["noise"].cpu())
        self.precision.load_state(state["precision"])
        self.sums.copy_(state["sums"])
        self.count.fill_(count)

    # -- for recipes -----------------------------------------------------------------------------------------------

    @property
    def scale(self) -> Tensor | None:
        return self.precision.scale

    def autocast(self):
        return self.precision.autocast()

    def backward(self, loss: Tensor) -> None:
        self.precision.backward(loss)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """[count, *shape] ~ U[0, 1), fp32; ``count`` is that of this process's samples.

        They are this process's rows of one draw for the whole batch, so that N processes draw what one does.
        ``ValueError`` for another count.
        """
        drawn = self._draw(torch.rand, *shape)
        if count != len(drawn):
            raise ValueError(f"count: got {count}, needs {len(drawn)}, the samples of a batch in this process")
        return drawn

    # -- the step --------------------------------------------------------------------------------------------------

    def __call__(self) -> None:
        if self.lr_decay != "none":
            factor = FACTORS[self.lr_decay](self.count / self.total)
            for rates in self.rates:
                for rate, base in rates:
                    rate.copy_(factor * base)
        self.discriminator.requires_grad_(True)
        for k in range(self.recipe.d_steps):
            last = k == self.recipe.d_steps - 1
            real, fake, figures = self.update_discriminator(k, last)
        self.discriminator.requires_grad_(False)
        loss_g = self.update_generator(real, fake)
        self.count += 1
        self.average.update(self.count)
        loss_d, *others = figures.unbind()
        if len(others) != len(self.recipe.figures):
            raise ValueError(
                f"{type(self.recipe).__name__} names figures {self.recipe.figures} and returned {len(others)}"
            )
        norms = self.norm(self.gradients_d), self.norm(self.gradients_g)
        self.sums += torch.stack([loss_d, loss_g, *others, *norms, torch.ones_like(loss_d)])

    def update_discriminator(self, k: int, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The k-th update: (real, fake, figures); of the last the fakes keep their graph for the generator's update."""
        real = self.feed.batch(k)
        with self.autocast(), torch.set_grad_enabled(last):
            fake = self.generate(self.latents())
        self.gradients_d.zero()
        try:
            figures = self.gradients_of_d(self.discriminator, real, fake.detach(), self)
        except NonFiniteError:  # penalties look at the scores on a CPU; the losses tell everywhere, and all ranks
            self.gradients_d.buffer.fill_(torch.nan)
            figures = self.gradients_d.buffer.new_full((1 + len(self.recipe.figures),), torch.nan)
        self.average_ranks(self.gradients_d.buffer)
        self.precision.update(self.optimizer_d)
        self.recipe.constrain(self.discriminator)
        return real, fake, figures

    def update_generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """With the discriminator's last fakes; no gradients of its weights are made."""
        with self.autocast():
            loss = self.loss_of_g(self.discriminator, fake, real)
        self.gradients_g.zero()
        self.backward(loss)
        self.average_ranks(self.gradients_g.buffer)
        self.precision.update(self.optimizer_g)
        return loss.detach().float()

    def latents(self) -> Tensor:
        """z [samples of this process, latent_dim] ~ N(0, 1)."""
        return self._draw(torch.randn, self.generator.latent_dim)

    def _draw(self, numbers: Callable, *shape: int) -> Tensor:
        """This process's rows of ``numbers`` for the whole batch."""
        size = self.feed.stream.batch, *shape
        return numbers(size, generator=self.noise, device=self.noise.device)[self.feed.rows]

    def norm(self, gradients: FlatGradients) -> Tensor:
        """‖∇loss‖₂, after the update, which takes the scale off; 0 where fp16 overflowed and it was left out."""
        norm = gradients.norm()
        return norm if self.scale is None else norm.nan_to_num(0, 0, 0)


def _on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> list[tuple[Tensor, float]]:
    """Turn the learning rates into tensors that a CUDA graph reads anew: (tensor, its first value) of each group."""
    rates = []
    for group in optimizer.param_groups:
        base = float(group["lr"])
        group["lr"] = torch.tensor(base, device=device)
        if "capturable" in group:
            group["capturable"] = device.type == "cuda"
        rates.append((group["lr"], base))
    return rates
