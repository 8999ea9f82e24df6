import pytest
import torch

from ganfast import models
from ganfast.errors import InputError


def test_latents_depend_on_the_seed_alone():
    one = models.latents([5], 10)
    many = models.latents([1, 5, 9], 10)
    assert torch.equal(one[0], many[1]) and not torch.equal(many[0], many[1])
    assert models.latents([], 10).shape == (0, 10)


def test_truncation_cuts_the_normal_off():
    cut = models.latents(range(200), 50, truncation=0.5)
    assert cut.abs().max() <= 0.5 and cut.std() > 0.2
    for truncation in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="--truncation"):
            models.latents([0], 3, truncation=truncation)
