"""Pictures of points over the discriminator's level lines: what is seen, and that training does not notice."""

import numpy as np
import pytest
import torch
from torch import nn
from training.tiny import assert_same_bits, weights

from ganfast import Trainer
from ganfast.nn import MinibatchDiscrimination
from ganfast.recipes import GAN
from ganfast.training import landscape

CPU = torch.device("cpu")


class Score(nn.Module):
    """points [N, 2] → a known function of them."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, points):
        return self.function(*points.T)


def test_scores_and_gradients_lie_where_their_points_are():
    seen = landscape.survey(Score(lambda x, y: 2 * x * x - 3 * y), 1.5, CPU)
    along = np.linspace(-1.5, 1.5, landscape.PLACES)
    np.testing.assert_allclose(seen.scores, 2 * along**2 - 3 * along[::-1, None], atol=1e-5)
    middle = (np.arange(landscape.ARROWS) + 0.5) / landscape.ARROWS * 3 - 1.5
    np.testing.assert_allclose(seen.gradients[..., 0], np.broadcast_to(4 * middle, (16, 16)), atol=1e-5)
    np.testing.assert_allclose(seen.gradients[..., 1], -3, atol=1e-5)


def test_level_lines_are_circles_of_a_cone_and_arrows_point_outwards():
    seen = landscape.survey(Score(lambda x, y: (x * x + y * y).sqrt()), 1.0, CPU)
    nothing = np.zeros((0, 2), np.float32)
    picture = landscape.picture(nothing, nothing, 1.0, seen)
    assert picture.shape == (400, 400, 3) and picture.dtype == np.uint8
    assert picture[200, 200].mean() > picture[2, 2].mean()  # shaded upwards: white is the lowest
    lines = landscape.half(landscape.borders((landscape.smooth(seen.scores) * landscape.LEVELS).astype(np.int8)))
    y, x = np.argwhere(lines[:, :200] > 0.2).T / 200 - 1
    step = np.sqrt(2) / landscape.LEVELS
    offsets = np.abs(np.hypot(x, y) / step - np.round(np.hypot(x, y) / step))
    assert len(x) > 1000 and np.median(offsets) < 0.1 and np.quantile(offsets, 0.99) < 0.35
    mask = landscape.arrows(seen.gradients)
    left, right = mask[200:225, 100:112].sum(), mask[200:225, 112:125].sum()  # one cell to the left of the middle
    assert left > right > 0  # the head, which is wider, is farther out


def test_real_and_generated_points_have_their_colours():
    real, fake = np.array([[0.5, 0.5]] * 40), np.array([[-0.5, -0.5]] * 40)
    picture = landscape.picture(real, fake, 1.0, None)
    assert np.abs(picture[100, 300] - np.array(landscape.REAL)).max() <= 1
    assert np.abs(picture[300, 100] - np.array(landscape.FAKE)).max() <= 1
    assert (picture[200, 200] == 255).all()
    one = landscape.picture(real[:, :1], fake[:, :1], 1.0, None)  # a single coordinate lies on the axis
    assert np.abs(one[200, 300] - np.array(landscape.REAL)).max() <= 1


@pytest.mark.parametrize("score", [lambda x, y: 0 * x, lambda x, y: x / 0, lambda x, y: (x > 0) * 1.0 + 0 * y])
def test_flat_infinite_and_stepped_scores_are_drawn(score):
    seen = landscape.survey(Score(score), 1.0, CPU)
    points = np.zeros((1, 2), np.float32)
    assert landscape.picture(points, points, 1.0, seen).shape == (400, 400, 3)


@pytest.mark.parametrize(
    "network, answer",
    [
        (nn.Linear(2, 1), True),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 1), nn.Flatten(0)), True),
        (nn.Linear(2, 2), False),  # code or reconstruction
        (nn.Sequential(nn.Unflatten(0, (-1, 3)), nn.Flatten(), nn.Linear(6, 1)), False),  # three packed
        (nn.Linear(4, 1), False),
        (nn.Bilinear(2, 3, 1), False),  # is given something else, too
        (nn.Sequential(MinibatchDiscrimination(2, 3, 2), nn.Linear(5, 1)), False),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1)), False),
    ],
    ids=["linear", "usual", "code", "packed", "wide", "conditional", "minibatch", "batch statistics"],
)
def test_which_networks_judge_points(network, answer):
    assert landscape.judges_points(network, CPU) is answer


def test_a_network_is_left_as_it_was():
    network = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8)), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)
    )
    network[3].eval().requires_grad_(False)
    network(torch.randn(5, 2)).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    random = torch.get_rng_state()
    with torch.no_grad():
        first = landscape.survey(network, 1.0, CPU)
    assert np.array_equal(first.scores, landscape.survey(network, 1.0, CPU).scores) and np.ptp(first.scores) > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in network] == [True, True, True, False]
    assert [p.requires_grad for p in network[3].parameters()] == [False, False]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for parameter, gradient in zip(network.parameters(), gradients):
        assert parameter.grad is None if gradient is None else torch.equal(parameter.grad, gradient)


class Noisy(GAN):
    """GAN whose discriminator has all that a picture could disturb."""

    def networks(self, data):
        judge = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 1))
        return {**super().networks(data), "D": judge}


def test_training_is_the_same_with_and_without_pictures(tmp_path):
    found, shown = [], []
    for every in (1, 1000):
        options = {"steps": 6, "batch": 8, "checkpoint_every": 1000, "outdir": str(tmp_path / str(every))}
        trainer = Trainer(Noisy(width=8), "gaussians:ring8", sample_every=every, **options)
        run = trainer.train(progress=False)
        found.append(weights(trainer))
        shown.append([file.name for file in sorted(run.glob("fakes-*.png"))])
    assert_same_bits(*found)
    assert len(shown[0]) == 7 and shown[1] == ["fakes-000000.png", "fakes-000006.png"]
    from PIL import Image

    with Image.open(run / "fakes.png") as picture:
        colours = np.asarray(picture)
    assert colours.shape == (400, 400, 3) and trainer.show.critic is trainer.state.networks["D"]
    assert (colours[..., 2] > colours[..., 0].astype(int) + 20).sum() > 5000  # level lines, arrows, shades
    assert (colours[..., 0] > colours[..., 2].astype(int) + 60).sum() >= 9  # generated points, still all in one place
