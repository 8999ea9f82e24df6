"""Every recipe on images that are twice as wide as high."""

import pytest
import torch

from ganfast import Trainer, load
from ganfast.data import Dataset
from ganfast.recipes import RECIPES

HEIGHT, WIDTH = 32, 64
FIELDS = {
    **{name: {"width": 2, "blocks": 1, "layers": 2} for name in ("cyclegan", "cut", "fastcut")},
    "lapgan": {"width": 2, "latent_dim": 5, "detail": 2},
    "pix2pix": {"width": 2, "layers": 2},
    "galaxy": {"width": 2, "layers": 2},
    "inpaint": {"width": 2, "code": 5},
    **{name: {"width": 2, "blocks": 1} for name in ("stargan", "ganimation")},
    "spade": {"width": 2, "layers": 2},
    "srgan": {"width": 2, "blocks": 1, "pretraining": 0.5},
}
ON_IMAGES = [name for name, cls in RECIPES.items() if any(each.kind == "images" for each in cls().columns.values())]
ON_IMAGES.remove("style-transfer")  # takes one picture, and weights of VGG16


def images(count=12, seed=0) -> Dataset:
    random = torch.Generator().manual_seed(seed)
    noise = torch.randint(256, (count, HEIGHT, WIDTH, 3), generator=random, dtype=torch.uint8)
    liked = torch.randint(2, (count, 4), generator=random).float()
    columns = {"images": noise, "targets": 255 - noise, "maps": noise[..., :1] // 64}
    return Dataset(f"wide-{seed}", **columns, labels=torch.arange(count) % 3, attributes=liked)


def train(name, outdir, steps=2, architecture=None, **options):
    fields = FIELDS.get(name, {"width": 2, "latent_dim": 3})
    recipe = RECIPES[name](**fields, **({"architecture": architecture} if architecture else {}))
    two = any(column.source for column in recipe.columns.values())
    data = (images(), images(seed=1)) if two else images()
    options = {"batch": 4, "log_every": 1, "checkpoint_every": 1, "seed": 3, "outdir": str(outdir), **options}
    trainer = Trainer(recipe, data, steps=steps, **options)
    return trainer, trainer.train(progress=False)


@pytest.mark.parametrize("name, architecture", [*((name, None) for name in ON_IMAGES), ("wgan-gp", "resnet")])
def test_every_recipe_trains_and_samples(name, architecture, tmp_path):
    trainer, run = train(name, tmp_path, architecture=architecture)
    assert trainer.step == 2 and (run / "fakes.png").is_file() and (run / "reals.png").is_file()
    trained = load(run)
    samples = trained(*trained.example(2).values())
    assert samples.shape == (2, 3, HEIGHT, WIDTH) and samples.abs().max() <= 1
    if trained.can("reconstruct"):
        assert trained.reconstruct(samples).shape == samples.shape


def test_a_run_is_resumed_bit_for_bit(tmp_path):
    whole, _ = train("dcgan", tmp_path / "whole", steps=4)
    _, run = train("dcgan", tmp_path / "parts", steps=4, sample_every=50)
    for checkpoint in sorted(run.glob("checkpoint-*"))[2:]:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    resumed, _ = train("dcgan", tmp_path / "parts", steps=4, resume=str(run))
    for name, network in whole.state.networks.items():
        for a, b in zip(network.state_dict().values(), resumed.state.networks[name].state_dict().values(), strict=True):
            assert torch.equal(a, b)
