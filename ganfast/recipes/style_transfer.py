"""Style transfer: A Neural Algorithm of Artistic Style (Gatys et al. 2015, arXiv:1508.06576)."""

import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ganfast.data.columns import Images
from ganfast.errors import InputError
from ganfast.models import picture, vgg
from ganfast.objectives.style import gram, style_loss
from ganfast.recipes.base import Player, Recipe

STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1")
CONTENT = "conv4_1"  # the paper's conv4_2 is behind it


@dataclass(frozen=True, kw_only=True)
class StyleTransfer(Recipe):
    """The picture --data in the style of the picture --data-b, by the pixels alone (Gatys et al. 2015).

    What is trained is the change of each pixel, by Adam in the place of L-BFGS: one player, one picture, no network
    but VGG16's features (--vgg), which are fixed.
    """

    name = "style-transfer"
    columns = {"content": Images(single=True), "style": Images(source=1, single=True)}
    averaged = ("P",)
    given = {"content": columns["content"]}
    telling = ("content_loss", "style_loss")
    batch = 1

    vgg: str = ""
    """weights of VGG16 up to conv4_1"""
    ratio: float = 10.0
    """weight of the content's mean squared error beside the style; at 192×128 pixels 10 is α/β = 1e-4 of the paper"""
    lr: float = 0.02
    """Adam's learning rate, in pixels of [−1, 1]"""
    beta1: float = 0.9
    """Adam's decay rate of the first moment"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.ratio >= 0, "ratio", "be 0 or more")

    def networks(self, data):
        return {"P": picture.Change(data["content"].shape), "V": vgg.Maps()}

    def begin(self, networks):
        if not self.vgg:
            raise InputError("style-transfer compares the features of VGG16: give its weights (--vgg FILE).")
        networks["V"].load(self.vgg)

    def state(self, data):
        _, height, width = data["content"].shape
        sizes = {name: vgg.LAYERS[name][1] for name in STYLE}
        content = torch.zeros(1, vgg.LAYERS[CONTENT][1], height // 8, width // 8)
        return {f"gram_{name}": torch.zeros(1, size, size) for name, size in sizes.items()} | {"wanted": content}

    def players(self):
        look = Player((), None, after=self.look, every=sys.maxsize, name="look")
        return [look, Player(("P",), self.change, after=self.keep)]

    def look(self, t):
        """Before the first step: what the features of both pictures are."""
        t.state.wanted = self.maps(t.V, t.content)[CONTENT]
        for name, maps in self.maps(t.V, t.style).items():
            if name in STYLE:
                setattr(t.state, f"gram_{name}", gram(maps))

    def change(self, t):
        found = self.maps(t.V, t.P(t.content))
        content = F.mse_loss(found[CONTENT], t.state.wanted)
        style = style_loss([found[n] for n in STYLE], [getattr(t.state, f"gram_{n}") for n in STYLE])
        t.log(content_loss=content, style_loss=style)
        return self.ratio * content + style

    def distances(self, images, columns):
        network = vgg.Maps()
        network.load(self.vgg)
        with torch.no_grad():
            found, content, style = (self.maps(network, each) for each in (images, *columns.values()))
        of_style = style_loss([found[name] for name in STYLE], [gram(style[name]) for name in STYLE])
        return {"content": F.mse_loss(found[CONTENT], content[CONTENT]).item(), "style": of_style.item()}

    def keep(self, t):
        """Pixels stay in [−1, 1]."""
        t.P.pixels.copy_(t.P(t.content).clamp(-1, 1) - t.content)

    def maps(self, network, images):
        return dict(zip(vgg.LAYERS, network(images)))

    def sample(self, nets, z, given):
        return nets["P"](given["content"]).clamp(-1, 1)
