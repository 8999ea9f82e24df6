"""Simulated users."""

import pytest
import torch

from ganfast.data import open_dataset
from ganfast.data.users import tastes
from ganfast.errors import InputError
from ganfast.metrics.design import held_out_auc


def test_users_choose_what_is_to_their_taste():
    data, base = open_dataset("users:6:digits", size=16), open_dataset("digits", size=16)
    u = data.columns["attributes"]
    assert u.shape == (len(base), 6) and data.name == "users-digits" and torch.equal(data.samples, base.samples)
    assert torch.equal(u, open_dataset("users:6:digits", size=16).columns["attributes"])
    assert u.unique().tolist() == [-1, 0, 1] and 0.05 < (u == -1).sum() / (u != 0).sum() < 0.15
    assert ((u != 0).float().mean(0) - 0.12).abs().max() < 0.06
    assert held_out_auc(tastes(data, 6)(data.samples, data.labels), u) > 0.9
    assert any("6 are simulated" in note for note in data.notes)


def test_a_taste_is_for_colour_and_class():
    data = open_dataset("users:50:few:9:digits", size=16)
    liked = tastes(data, 50)
    assert (liked(data.samples, data.labels).std(0) - 4).abs().max() < 1e-4
    bright = torch.full_like(data.samples[:1], 200), data.labels[:1]
    other = torch.full_like(data.samples[:1], 200), data.labels[-1:]
    assert (liked(*bright) - liked(*other)).abs().max() > 1
    assert torch.equal(liked(*bright)[0], liked(bright[0].repeat(3, 1, 1, 1), bright[1].repeat(3))[2])


def test_users_look_at_images():
    with pytest.raises(InputError, match="users look at images"):
        open_dataset("users:3:gaussians:ring8")
    with pytest.raises(InputError, match="as users:10:digits"):
        open_dataset("users:digits")
