"""What the tests of training share."""

import torch

from ganfast import Trainer

TINY = {"size": 16, "batch": 8, "log_every": 1, "sample_every": 50, "checkpoint_every": 4}


def weights(trainer: Trainer) -> list[torch.Tensor]:
    """Everything that training changes, in one list."""
    state = trainer.state
    moments = [
        value
        for optimizer in state.optimizers.values()
        for moments in optimizer.state_dict()["state"].values()
        for value in moments.values()
    ]
    networks = [*state.networks.values(), *state.averages.values()]
    values = [value for network in networks for value in network.state_dict().values()]
    return [*values, *moments, *state.tensors.values(), state.noise.get_state(), torch.get_rng_state()]


def position(trainer: Trainer) -> int:
    """Real samples that were loaded."""
    return trainer.state.loaders[0].position


def assert_same_bits(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other) > 20
    for a, b in zip(one, other):
        assert torch.equal(a, b)


def without_times(rows: list[dict]) -> list[dict]:
    """Rows of stats.jsonl without what the clock says."""
    timed = ("images_per_second", "step_ms_p50", "step_ms_p95", "data_wait_ms")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]
