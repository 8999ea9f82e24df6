"""What each process of the test of rollbacks runs: `torchrun rollback_worker.py OUTDIR`; writes OUTDIR/RANK.pt.

Rank 1 alone meets a batch that is NaN, and later statistics that are infinite; all must go back together.
"""

import sys

import torch

from ganfast import Trainer
from ganfast.recipes import DCGAN


def main(outdir: str) -> None:
    trainer = Trainer(
        DCGAN(width=4, latent_dim=8), "digits", size=16, batch=8, steps=14, log_every=2, checkpoint_every=4,
        sample_every=50, on_nan="rollback", outdir=outdir, device="cpu",
    )  # fmt: skip
    advance, went_back = trainer.advance, []
    loader, restore = trainer.state.loaders[0], trainer.restore
    batch, one = loader.batch, trainer.ranks.rank == 1

    def watched(state):
        failed = trainer.step
        restore(state)
        went_back.append((failed, trainer.step))

    def hurt():
        advance()
        if one and trainer.step == 12 and trainer.state.rollbacks["count"] == 1:
            next(v for k, v in trainer.state.networks["D"].named_buffers() if "running_var" in k).fill_(torch.inf)

    def poisoned(k):
        found = batch(k)
        return {name: x * torch.nan for name, x in found.items()} if one and loader.position == 6 * 8 else found

    trainer.restore, trainer.advance, loader.batch = watched, hurt, poisoned
    trainer.train(progress=False)
    state = trainer.state
    found = {
        "weights": [p.detach() for net in state.networks.values() for p in net.parameters()],
        "moments": [s for o in state.optimizers.values() for s in o.state_dict()["state"].values()],
        "noise": state.noise.get_state(),
        "sums": state.means.buffer,
    }
    torch.save({**found, "went_back": went_back, "position": loader.position}, f"{outdir}/{trainer.ranks.rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
