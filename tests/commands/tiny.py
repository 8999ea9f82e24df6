"""Options of a training run that takes a second."""

TINY = ["--size", "16", "--width", "2", "--latent-dim", "4", "--batch", "4", "--steps", "2"]
