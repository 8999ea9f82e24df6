"""One of two processes that train a critic together; by a name that a spawned process finds."""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # imported later it holds the group, whose threads abort at exit
from penalty.truth import between, conv_critic, distance, double_backward, gradients, samples, wgan
from torch import nn

from ganfast import penalty


def rank_of_two(rank, world, path, queue):
    """Puts how far the gradients of both ways lie from those of one process with the whole batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
    torch.manual_seed(0)
    critic = conv_critic().double()
    real, fake, eps = samples((12, 3, 8, 8))
    loss = critic(fake).mean() - critic(real).mean()
    loss = loss + double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0]
    wanted = gradients(loss, critic)
    mine = [slice(rank * 6 + half, rank * 6 + half + 3) for half in (0, 3)]  # two batches: accumulated

    wrapped = nn.parallel.DistributedDataParallel(critic)
    for half, rows in enumerate(mine):
        with wrapped.no_sync() if half == 0 else torch.enable_grad():
            value = penalty.gradient_penalty(wrapped, real[rows], fake[rows], eps=eps[rows])
            (0.5 * (wrapped(fake[rows]).mean() - wrapped(real[rows]).mean() + value)).backward()
    queue.put(distance([p.grad for p in critic.parameters()], wanted))

    critic.zero_grad()
    for rows in mine:
        penalty.wgan_gp_step(wrapped, real[rows], fake[rows], eps=eps[rows], scale=0.5)
    for p in critic.parameters():
        dist.all_reduce(p.grad)
        p.grad /= world
    queue.put(distance([p.grad for p in critic.parameters()], wanted))
    dist.destroy_process_group()
