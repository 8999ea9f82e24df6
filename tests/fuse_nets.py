"""Networks of plain torch modules, as people write them, for the tests of ganfast.fuse."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def up(a, b, stride=2, padding=1, **more):
    return nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False, **more)


def generator():
    return nn.Sequential(
        up(6, 8, 1, 0),
        nn.BatchNorm2d(8),
        nn.ReLU(True),
        up(8, 5),
        nn.BatchNorm2d(5),
        nn.ReLU(True),
        up(5, 3),
        nn.Tanh(),
    )


def critic():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)),
        nn.Sequential(nn.Conv2d(4, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.2)),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.Sigmoid(),
        nn.Conv2d(6, 1, 4),
    )


class Attributes(nn.Module):
    """Convolutions by attribute, with activations of every kind; what is last has none."""

    def __init__(self):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(6)  # before its convolution: the order of keys is the user's
        self.conv1 = nn.Conv2d(4, 6, 3, 1, 1)
        self.conv2 = nn.ConvTranspose2d(6, 5, 4, 2, 1)
        self.bn2, self.relu = nn.BatchNorm2d(5), nn.ReLU(True)
        self.scale = nn.Parameter(torch.rand(1, 5, 1, 1))
        self.register_buffer("offset", torch.rand(1, 5, 1, 1))
        self.convs = nn.ModuleList([nn.Conv2d(5, 5, 1), nn.Conv2d(5, 4, 3, bias=False)])
        self.conv6, self.bn6 = nn.Conv2d(4, 3, 2), nn.BatchNorm2d(3)

    def forward(self, x, gain: float = 1.0):
        """Straight from top to bottom."""
        x = F.leaky_relu(self.bn1(self.conv1(x)), 0.2, inplace=True)
        y = self.relu(self.bn2(self.conv2(x)))
        y = y * self.scale + self.offset
        y = torch.tanh(self.convs[1](F.leaky_relu(self.convs[0](y))))
        y: torch.Tensor = self.bn6(self.conv6(y))
        return y.flatten(start_dim=1).mean(1) * gain


class Bottleneck(nn.Module):
    """A residual block: the input is used twice, and so is the shortcut."""

    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.shortcut = nn.Conv2d(4, 4, 1)
        self.out, self.bn = nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        s = self.shortcut(x)
        x = self.main(x) + s + s.tanh()
        return self.bn(self.out(x)).relu()


class _One(nn.Module):
    """A convolution, a BatchNorm2d and an activation; the forward is the subclass's."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 3, 3, 1, 1), nn.BatchNorm2d(3), nn.ReLU()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.strength, self.use_bn = 0.5, True


class Branches(_One):
    def forward(self, x):
        x = self.conv(x)
        if self.use_bn:
            x = self.bn(x)
        return self.act(x)


class Loop(_One):
    def forward(self, x):
        for _ in range(2):
            x = self.act(self.bn(self.conv(x)))
        return x


class Reads(_One):
    def forward(self, x):
        return self.act(self.bn(self.conv(x))) * self.strength


class Counter(_One):
    def forward(self, x):
        x = self.act(self.bn(self.conv(x)))
        self.last = x
        return x


class Noisy(_One):
    def forward(self, x):
        return self.act(self.bn(self.conv(x + torch.rand(3, 1, 1) * 0)))


class Helper(_One):
    def forward(self, x):
        return self.act(self.bn(self.conv(x))) * math.sqrt(2)


class Method(_One):
    def block(self, x):
        return self.act(self.bn(self.conv(x)))

    def forward(self, x):
        return self.block(x)


class Decorated(_One):
    @torch.no_grad()
    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Inner(_One):
    def forward(self, x):
        def block(x):
            return self.act(self.bn(self.conv(x)))

        return block(x)


class Untraceable(_One):
    def forward(self, x):
        a, *_ = self.act(self.bn(self.conv(x)))
        return a


class Constant(_One):
    def forward(self, x):
        return self.act(self.bn(self.conv(x))) * torch.get_num_threads()


class Mixes(_One):
    def forward(self, x, *more):
        return self.act(self.bn(self.conv(x)))


class Tapped(_One):
    def forward(self, x):
        y = self.conv(x)
        return self.act(self.bn(y)) + y


class Checkpointed(_One):
    def forward(self, x):
        return self.act(self.bn(checkpoint(self.conv, x, use_reentrant=False)))


class Size(_One):
    def forward(self, x):
        return self.act(self.bn(self.conv(x)[:, :, : int(x.size(2))]))


class Sized(_One):
    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 3, 2, 2)

    def forward(self, x):
        return self.act(self.bn(self.conv(x, output_size=(17, 17))))


class SharedNorm(_One):
    """The second convolution's output passes the norm first."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x):
        a, b = self.conv(x), self.other(3 * x)
        b = torch.tanh(self.bn(b))
        return self.act(self.bn(a)) * b


class Residual(_One):
    """Changes its own tensors in place, and its input; sizes are numbers, which cannot be changed."""

    def forward(self, x):
        channels, _, _ = x.shape[1:]
        half = channels
        half //= 2
        y = self.bn(self.conv(x.clone()))
        y += x
        y = self.act(y)
        t = y.mT
        t *= 2
        x -= 1
        return y[:, half:channels]


class Unused(_One):
    def forward(self, x):
        return self.act(self.bn(x))


class Taken(_One):
    """Runs the parts of its Sequential one by one."""

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return x + features[0] + self.layers[0](features[1])


class WholeAndPart(_One):
    def forward(self, x):
        return self.layers(x) + self.layers[0](x)
