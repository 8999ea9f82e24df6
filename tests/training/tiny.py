"""What the tests of training share."""

import torch

from ganfast import Trainer

TINY = {"size": 16, "batch": 8, "log_every": 1, "sample_every": 50, "checkpoint_every": 4}


def weights(trainer: Trainer) -> list[torch.Tensor]:
    """Everything that training changes, in one list."""
    moments = [
        value
        for optimizer in (trainer.update.optimizer_g, trainer.update.optimizer_d)
        for state in optimizer.state_dict()["state"].values()
        for value in state.values()
    ]
    networks = [value for network in trainer.networks.values() for value in network.state_dict().values()]
    return [*networks, *moments, trainer.update.noise.get_state(), torch.get_rng_state()]


def assert_same_bits(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other) > 20
    for a, b in zip(one, other):
        assert torch.equal(a, b)
