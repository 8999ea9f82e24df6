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
    advance, batch, went_back = trainer.advance, trainer.feed.batch, []
    restore = trainer.rollback.__class__.__call__

    def watched(rollback, which, monitor, error):
        restore(rollback, which, monitor, error)
        went_back.append((error.step, trainer.step, error.what))

    trainer.rollback.__class__.__call__ = watched
    one = trainer.ranks.rank == 1

    def hurt():
        advance()
        if one and trainer.step == 12 and trainer.state.rollbacks["count"] == 1:
            next(v for k, v in trainer.state.networks["D"].named_buffers() if "running_var" in k).fill_(torch.inf)

    trainer.feed.batch = lambda k: batch(k) * (torch.nan if one and position(trainer) == 6 * 8 else 1)
    trainer.advance = hurt
    trainer.train(progress=False)
    weights = [p.detach() for net in trainer.state.networks.values() for p in net.parameters()]
    moments = [
        s for o in (trainer.update.optimizer_g, trainer.update.optimizer_d) for s in o.state_dict()["state"].values()
    ]
    found = {
        "weights": weights,
        "moments": moments,
        "noise": trainer.state.noise.get_state(),
        "sums": trainer.update.sums,
    }
    torch.save({**found, "went_back": went_back, "position": position(trainer)}, f"{outdir}/{trainer.ranks.rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
