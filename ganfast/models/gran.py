"""The recurrent generator of GRAN (Im et al. 2016, arXiv:1602.05110) of DCGAN's parts."""

import torch
from torch import Tensor, nn

from ganfast.models import dcgan
from ganfast.models.sizes import Size


class Generator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1) → images [B, channels, H, W] in (−1, 1), drawn on a canvas in ``timesteps`` steps.

    h_z = tanh(W z + b); h_c,t = tanh(g(ΔC_t−1)), h_c,1 = 0; ΔC_t = f([h_z; h_c,t]); the image is tanh(Σ_t ΔC_t). The
    decoder f and the encoder g are the same in each step; both hidden vectors have ``latent_dim`` numbers.
    """

    def __init__(self, size: Size, channels: int, latent_dim: int, width: int, timesteps: int):
        super().__init__()
        self.timesteps = timesteps
        self.hidden = nn.Linear(latent_dim, latent_dim)
        nn.init.normal_(self.hidden.weight, 0.0, latent_dim**-0.5)  # torch's smaller weights soon forget most of z
        nn.init.zeros_(self.hidden.bias)
        self.decoder = dcgan.Generator(size, channels, 2 * latent_dim, width, activation=None)
        self.encoder = dcgan.Discriminator(size, channels, width, outputs=latent_dim)

    def canvases(self, z: Tensor) -> list[Tensor]:
        """The image after each step; the last one is ``forward(z)``."""
        drawn, total, change, h_z = [], 0, None, self.hidden(z).tanh()
        for step in range(self.timesteps):
            h_c = self.encoder(change).tanh() if step else torch.zeros_like(h_z)
            change = self.decoder(torch.cat([h_z, h_c], 1))
            total = total + change
            drawn.append(total.tanh())
        return drawn

    def forward(self, z: Tensor) -> Tensor:
        return self.canvases(z)[-1]
