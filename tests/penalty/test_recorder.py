"""Critics as people write them: their forward is run at each pass, and what cannot be recorded says why."""

import gc
import io
import random
import types
import weakref

import pytest
import torch
import torch.nn.functional as F
from penalty.truth import CRITICS, between, distance, double_backward, gradients, grads, samples, wgan
from torch import nn

from ganfast import penalty


def check(critic, shape=(5, 6), strict=True, inputs=()):
    """The penalty and the step against double backward."""
    torch.manual_seed(0)
    real, fake, eps = samples(shape)
    x = between(real, fake, eps).requires_grad_()
    value, _ = double_backward(critic, x, wgan, inputs)
    wanted = gradients(value, critic)
    mine = penalty.gradient_penalty(critic, real, fake, eps=eps, inputs=inputs, strict=strict)
    assert distance(gradients(mine, critic), wanted) < 1e-10
    loss = double_backward(critic, x, wgan, inputs)[0] + critic(fake, *inputs).mean() - critic(real, *inputs).mean()
    wanted = gradients(loss, critic)
    critic.zero_grad()
    penalty.wgan_gp_step(critic, real, fake, eps=eps, inputs=inputs, strict=strict)
    assert distance(grads(critic), wanted) < 1e-10


class Written(nn.Module):
    """A critic whose forward is ``body(self, x)``."""

    def __init__(self, body, inputs=6):
        super().__init__()
        self.f, self.g, self.body = nn.Linear(inputs, 6), nn.Linear(6, 1), body
        self.alpha = 0.3

    def forward(self, x):
        return self.body(self, x)


def adds_in_place(critic, x):
    h = critic.f(x)
    k = h
    k += x
    return critic.g(h.tanh() + k)


def adds_to_a_view(critic, x):
    h = critic.f(x)
    k = h.view(-1, 6)
    k *= 2
    return critic.g(h)


def draws(critic, x):
    return critic.g(critic.f(x if random.random() < 2 else -x))


def makes_a_tensor(critic, x):
    return critic.g(critic.f(x) * torch.ones(6, dtype=x.dtype).cumsum(0)) + torch.ones(1).double()


def branches(critic, x):
    return critic.g(critic.f(x)) if x.sum() > 0 else critic.g(critic.f(-x))


def accumulates(critic, x):
    return critic.f(x).cumprod(1)


def holds_still(critic, x):
    with torch.no_grad():
        still = critic.f(x).tanh()
    return critic.g(critic.f(x) * still)


def leaves_autocast(critic, x):
    with torch.autocast("cpu", enabled=False):
        return critic.g(critic.f(x).tanh())


BODIES = {
    "in place": adds_in_place, "random": draws, "tensor": makes_a_tensor, "branch": branches, "no rule": accumulates,
    "no_grad": holds_still, "autocast": leaves_autocast,
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_whatever_a_forward_does_is_recorded(body):
    check(Written(BODIES[body]).double())


def by_item(critic, x):
    return critic.a.item() * critic.g(critic.f(x).tanh())


def by_float(critic, x):
    return critic.g((float(critic.a) * critic.f(x)).tanh())


def by_branch(critic, x):
    return critic.g(critic.f(x).tanh()) if critic.a < 1 else critic.g(x) * 2


def by_stage(critic, x):
    for _ in range(int(critic.a * 4)):
        x = critic.f(x).tanh()
    return critic.g(x)


def by_slope(critic, x):
    return critic.g(F.leaky_relu(critic.f(x), critic.a))


def by_numpy(critic, x):
    return critic.g(critic.f(x).tanh() * critic.a.numpy().max())


def by_options(critic, x):
    return critic.g(critic.f(x).tanh() * critic.opt.a)


@pytest.mark.parametrize("body", [by_item, by_float, by_branch, by_stage, by_slope, by_numpy, by_options])
def test_numbers_are_read_at_each_call(body):
    torch.manual_seed(0)
    critic = Written(body).double()
    critic.register_buffer("a", torch.tensor(0.5, dtype=torch.float64))
    critic.opt = types.SimpleNamespace(a=0.5)
    check(critic)
    critic.a.fill_(1.5)
    critic.opt.a = 1.5
    check(critic)


def test_a_factor_in_a_buffer_counts_squared():
    torch.manual_seed(0)
    critic, x = Written(by_item).double(), torch.randn(5, 6).double()
    critic.register_buffer("a", torch.tensor(1.0))
    before = penalty.r1(critic, x).detach()
    critic.a.fill_(3.0)
    torch.testing.assert_close(penalty.r1(critic, x).detach(), 9 * before)


class Writes(nn.Module):
    """Counts its calls, in a number and in a buffer, and keeps its features if asked to."""

    def __init__(self, keeps):
        super().__init__()
        self.f, self.g, self.keeps, self.calls, self.features = nn.Linear(6, 6), nn.Linear(6, 1), keeps, 0, None
        self.register_buffer("n", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        self.n += 1
        h = self.f(x).tanh()
        if self.keeps:
            self.features = h
        return self.g(h)


@pytest.mark.filterwarnings("ignore:ganfast.penalty:UserWarning")
@pytest.mark.parametrize("keeps", [False, True], ids=["counts", "keeps"])
def test_what_a_forward_writes_is_written_as_often_as_in_plain_torch(keeps):
    torch.manual_seed(0)
    critic = Writes(keeps)
    real, fake, _ = samples((5, 6), torch.float32)
    penalty.r1(critic, real).backward()
    assert (critic.calls, int(critic.n)) == (1, 1)
    penalty.wgan_gp_step(critic, real, fake)
    assert (critic.calls, int(critic.n)) == (4, 4)
    if keeps:  # with a graph, as in plain torch, and nothing of ours
        weight = critic.f.weight
        penalty.r1(critic, real)
        assert torch.autograd.grad(critic.features.sum(), weight)[0].any()
        critic.features = critic.features.detach()
        torch.save(critic.state_dict(), io.BytesIO())
    check(Writes(False).double())


def test_a_coin_is_tossed_for_each_batch():
    """Of a merged step real, fake and x̂ would share it; Python's coin is restored after the trial."""
    torch.manual_seed(0)
    critic = Written(lambda self, x: self.g(self.f(x) if random.random() < 0.5 else -self.f(x).tanh())).double()
    real, fake, eps = samples((5, 6))
    random.seed(1)
    x = between(real, fake, eps).requires_grad_()
    wanted = critic(real).mean() - critic(fake).mean()
    wanted = gradients(double_backward(critic, x, wgan)[0] - wanted, critic)
    random.seed(1)
    penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(grads(critic), wanted) < 1e-10


@pytest.mark.filterwarnings("ignore:ganfast.penalty:UserWarning")
@pytest.mark.parametrize("as_function", [False, True], ids=["module", "function"])
def test_a_way_that_fails_later_counts_nothing_twice(as_function):
    torch.manual_seed(0)
    critic = Writes(False).double()
    real, fake, eps = samples((5, 6))
    called = (lambda x: critic(x)) if as_function else critic
    x = between(real, fake, eps).requires_grad_()
    loss = double_backward(critic, x, wgan)[0] + critic(fake).mean() - critic(real).mean()
    wanted = gradients(loss, critic)
    for keeps in (False, True, True):  # at the second call the plan no longer holds
        critic.keeps = keeps
        critic.zero_grad()
        penalty.wgan_gp_step(called, real, fake, eps=eps)
        assert distance(grads(critic), wanted) < 1e-10
        mine = penalty.gradient_penalty(called, real, fake, eps=eps)
        assert distance(gradients(mine, critic), gradients(double_backward(critic, x, wgan)[0], critic)) < 1e-10


def test_what_a_critic_keeps_is_said_with_the_reason():
    with pytest.raises(penalty.NoRuleError, match="it keeps a tensor of its forward"):
        penalty.r1(Writes(True), torch.randn(5, 6), strict=True)


def test_a_view_changed_in_place_is_no_longer_read_by_its_old_name():
    critic = Written(adds_to_a_view).double()
    x = torch.randn(5, 6).double()
    with pytest.raises(penalty.NoRuleError, match="memory was changed in place by way of another"):
        penalty.gradient_penalty(critic, x, x, strict=True)
    with pytest.warns(UserWarning, match=r"double backward, since .*test_recorder.py, line \d+"):
        check(critic, strict=False)


def shortcut(critic, x):
    h = critic.f(x)
    return critic.g(critic.f(F.relu(h, inplace=True)) + h)  # h is the rectified one


def through_a_clamp(critic, x):
    h = critic.f(x)
    k = critic.f(h.clone().clamp_(min=-0.5).mul_(2.0))
    h[:, 2:] = k[:, :4]
    return critic.g(h)


def more_scores(critic, x):
    return critic.f(x).tanh().view(-1, 1)


@pytest.mark.parametrize("body", [shortcut, through_a_clamp, more_scores])
def test_in_place_and_patches(body):
    torch.manual_seed(0)
    check(Written(body).double())


def test_any_function_is_a_critic():
    torch.manual_seed(0)
    critic = Features().double()
    real, fake, eps = samples((5, 6))
    scores = lambda x: critic(x)[1]  # noqa: E731
    x = between(real, fake, eps).requires_grad_()
    wanted = gradients(double_backward(scores, x, wgan)[0], critic)
    for form in (eps, eps[:, None]):
        mine = penalty.gradient_penalty(scores, real, fake, eps=form)
        assert distance(gradients(mine, critic), wanted) < 1e-10
    wanted = gradients(double_backward(scores, x, wgan)[0] + scores(fake).mean() - scores(real).mean(), critic)
    penalty.wgan_gp_step(scores, real, fake, eps=eps)
    assert distance(grads(critic), wanted) < 1e-10


def test_in_place_where_nobody_else_looks():
    def residual(critic, x):
        h = critic.f(x)
        h += x
        return critic.g(F.relu(h, inplace=True))

    check(Written(residual).double())


def with_parameter(shape, body):
    critic = Written(body)
    critic.a = nn.Parameter(torch.randn(shape))
    return critic


def mixed(critic, x):
    """Minibatch statistics by hand: real and fake must not meet."""
    h = critic.f(x)
    return critic.g(h) + (h - h.mean(0)).square().mean(0).add(1e-3).sqrt().mean()


TRAPS = {
    "x + x": lambda: Written(lambda self, x: self.g((lambda h: h + h)(self.f(x)).tanh())),
    "add(x, x)": lambda: Written(lambda self, x: self.g((lambda h: torch.add(h, h))(self.f(x)).relu())),
    "x * x": lambda: Written(lambda self, x: self.g((lambda h: h * h)(self.f(x)) + x)),
    "x - x": lambda: Written(lambda self, x: self.g((lambda h: (h - h) + h.tanh())(self.f(x)))),
    "x / x": lambda: Written(lambda self, x: self.g((lambda h: h / h + h.tanh())(self.f(x)))),
    "cat of one": lambda: Written(lambda self, x: self.g(torch.cat([self.f(x)] * 2, 1)[:, 3:9].tanh())),
    "detached": lambda: Written(lambda self, x: self.g((lambda h: h * h.detach().tanh())(self.f(x)))),
    "detached, cat": lambda: Written(
        lambda self, x: self.g((lambda h: torch.cat([h, h.detach()], 1)[:, 3:9])(self.f(x)).tanh())
    ),
    "rounded": lambda: Written(lambda self, x: self.g((lambda h: h + h.div(2, rounding_mode="floor"))(self.f(x)))),
    "bias": lambda: with_parameter(6, lambda self, x: self.g((self.f(x) + self.a).tanh())),
    "bias of rows": lambda: with_parameter((1, 6), lambda self, x: self.g((self.f(x) + self.a).tanh())),
    "gate": lambda: with_parameter((), lambda self, x: self.g((self.f(x) * torch.tanh(self.a * 2) + x).tanh())),
    "scalar added": lambda: with_parameter((), lambda self, x: self.g((self.f(x) + self.a).tanh())),
    "view of a parameter": lambda: with_parameter(6, lambda self, x: self.g(self.f(x) * self.a.view(1, -1))),
    "scores of two ranks": lambda: Written(lambda self, x: self.g(self.f(x).tanh()) + self.f(x).sum(1)),
    "rows as features": lambda: Written(
        lambda self, x: self.g((self.f(x).transpose(dim0=0, dim1=1) * 0.5).transpose(dim0=0, dim1=1).tanh())
    ),
    "statistics of the batch": lambda: Written(mixed),
    "a batch size in the code": lambda: Written(lambda self, x: self.g(self.f(x).tanh().view(5, -1))),
    "ELU in place": lambda: Written(lambda self, x: self.g(F.elu(self.f(x), inplace=True))),
    "layer in place": lambda: nn.Sequential(nn.Linear(6, 8), nn.SELU(inplace=True), nn.Linear(8, 1)),
    "GroupNorm of features": lambda: nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Tanh(), nn.Linear(8, 1)),
    "keyword": lambda: Written(lambda self, x: self.g(F.softplus(input=self.f(x), beta=2.0))),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_traps(name):
    torch.manual_seed(3)
    check(TRAPS[name]().double())


class Beside(nn.Module):
    """A critic whose forward is ``body(self, x, y)``."""

    def __init__(self, body, width=6):
        super().__init__()
        self.f, self.g, self.e, self.body = nn.Linear(6, 6), nn.Linear(width, 1), nn.Embedding(4, 6), body

    def forward(self, x, y=None):
        return self.body(self, x, y)


def projected(critic, x, y):
    h = critic.f(x).tanh()
    return critic.g(h) if y is None else critic.g(h) + (critic.e(y) * h).sum(1, keepdim=True)


LABELS = torch.tensor([0, 1, 2, 3, 3])
MAP = torch.randn(5, 4).double()
BESIDE = {
    "a map": (lambda: Beside(lambda self, x, y: self.g(torch.cat([self.f(x), y], 1).tanh()), 10), (MAP,)),
    "one-hot": (
        lambda: Beside(lambda self, x, y: self.g(torch.cat([x, F.one_hot(y, 4).to(x.dtype)], 1).relu()), 10), (LABELS,),
    ),
    "embedded": (lambda: Beside(lambda self, x, y: self.g(torch.cat([self.f(x).tanh(), self.e(y)], 1)), 12), (LABELS,)),
    "a table": (lambda: Beside(lambda self, x, y: self.f(x).tanh()[:, :5] @ y), (MAP,)),
    "labels": (lambda: Beside(projected), (LABELS,)), "None": (lambda: Beside(projected), (None,)),
    "left out": (lambda: Beside(projected), ()),
    "a number": (lambda: Beside(lambda self, x, y: self.g(self.f(x).tanh() * y if y > 1 else x)), (2,)),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_arguments_beside_the_samples(name):
    torch.manual_seed(0)
    make, inputs = BESIDE[name]
    check(make().double(), inputs=inputs)


def test_numbers_among_the_arguments_are_read_at_each_call():
    critic = Beside(lambda self, x, y: self.g(self.f(x).tanh() if y else self.f(x).relu())).double()
    for flag in (True, False):
        check(critic, inputs=(flag,))


def test_what_a_critic_holds_is_read_at_each_call():
    critic = Written(lambda self, x: self.g(sum(self.act(self.f(x * a)) for a in self.scales))).double()
    critic.act, critic.scales = torch.tanh, [0.5, 2.0]
    check(critic)
    critic.act = F.relu
    check(critic)
    critic.scales.append(3.0)
    check(critic)
    act = nn.Tanh()
    critic = nn.Sequential(nn.Linear(6, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 1)).double()
    check(critic)
    del critic[3]
    check(critic)


def test_a_forward_put_on_a_layer_and_hooks_count():
    critic = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    critic[1].forward = torch.tanh
    check(critic)
    critic[2].register_forward_hook(lambda module, inputs, output: 3 * output)
    check(critic)


@pytest.mark.parametrize("what", ["weight", "samples"])
def test_what_changed_before_backward_is_noticed(what):
    critic, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 6)
    value = penalty.r1(critic, x, strict=True)
    with torch.no_grad():
        (critic[0].weight if what == "weight" else x).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_dtypes_are_not_mixed_in_silence():
    critic, x = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 1)), torch.randn(5, 6).bfloat16()
    for function in (penalty.gradient_penalty, penalty.wgan_gp_step):
        with pytest.raises(RuntimeError, match="same dtype"):
            function(critic, x, x)


@pytest.mark.filterwarnings("ignore:ganfast.penalty:UserWarning")
@pytest.mark.parametrize("norm", [nn.LayerNorm((5, 8)), nn.LayerNorm(4)])
def test_norms_of_other_shapes_raise(norm):
    real, fake, _ = samples((5, 6), torch.float32)
    with pytest.raises((ValueError, RuntimeError)):
        penalty.gradient_penalty(nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 1)), real, fake)


def test_hooks_count_in_a_compiled_step():
    real, fake, eps = samples((5, 6), torch.float32)
    critic = nn.Linear(6, 1)
    critic.register_forward_hook(lambda module, inputs, output: 3 * output)
    critic = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), critic)
    found = []
    for step in (penalty.wgan_gp_step, torch.compile(penalty.wgan_gp_step, backend="eager")):
        critic.zero_grad()
        step(critic, real, fake, eps=eps)
        found.append([g.clone() for g in grads(critic)])
    assert distance(*found) < 1e-6


def test_a_number_of_the_critic_is_read_at_each_call():
    critic = Written(lambda self, x: self.alpha * self.g(x) + (1 - self.alpha) * self.g(self.f(x).tanh())).double()
    for alpha in (0.3, 0.8):
        critic.alpha = alpha
        check(critic)
    critic = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)).double()
    for slope in (0.2, 0.05):
        critic[1].negative_slope = slope
        check(critic)


@pytest.mark.parametrize("function", [F.silu, F.softplus, F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.mish])
def test_activations_as_functions(function):
    check(Written(lambda self, x: self.g(function(self.f(x)))).double())


def test_bilinear_layers():
    critic = Written(lambda self, x: self.pair(self.f(x).tanh(), x))
    critic.pair = nn.Bilinear(6, 6, 2)
    check(critic.double())


class Attention(nn.Module):
    """Of SAGAN: every pixel looks at every other."""

    def __init__(self, features):
        super().__init__()
        self.q, self.k, self.v = nn.Conv2d(features, 2, 1), nn.Conv2d(features, 2, 1), nn.Conv2d(features, features, 1)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        batch, features, height, width = x.shape
        q, k, v = (layer(x).view(batch, -1, height * width) for layer in (self.q, self.k, self.v))
        seen = torch.softmax(torch.bmm(q.permute(0, 2, 1), k), -1)
        return x + self.gain * torch.bmm(v, seen.permute(0, 2, 1)).view(batch, features, height, width)


def test_attention():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), Attention(4), nn.Flatten(), nn.Linear(64, 1)]
    check(nn.Sequential(*layers).double(), (5, 3, 8, 8))


@pytest.mark.parametrize("name", ["conv", "residual", "LayerNorm"])
def test_the_step_within_no_grad_and_with_all_frozen(name):
    torch.manual_seed(0)
    critic, shape, _ = CRITICS[name]()
    real, fake, eps = samples(shape, torch.float32)
    step = penalty.wgan_gp_step(critic, real, fake, eps=eps)
    wanted = [g.clone() for g in grads(critic)]
    critic.zero_grad()
    with torch.no_grad():
        assert distance(penalty.wgan_gp_step(critic, real, fake, eps=eps), step) < 1e-6
    assert distance(grads(critic), wanted) < 1e-6
    critic.requires_grad_(False).zero_grad()
    assert distance(penalty.wgan_gp_step(critic, real, fake, eps=eps), step) < 1e-6
    assert all(p.grad is None for p in critic.parameters())
    assert not penalty.gradient_penalty(critic, real, fake, eps=eps).requires_grad


# --- results, layers without a rule -----------------------------------------------------------------------------------


class Transposed(nn.Module):
    """A property that is a tensor, and a result that an activation reads."""

    def __init__(self):
        super().__init__()
        self.f, self.g = nn.Linear(4, 3), nn.Linear(5, 1)

    def forward(self, x):
        h = self.f(x)
        return h, self.g(torch.relu(h).mT)


def test_results_that_are_read_again():
    torch.manual_seed(0)
    critic = Transposed().double()
    real, fake, eps = samples((6, 5, 4))
    wanted = gradients(
        double_backward(lambda x: critic(x)[0], between(real, fake, eps).requires_grad_(), wgan)[0], critic
    )
    mine = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    assert distance(gradients(mine, critic), wanted) < 1e-10


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.g = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x):
        h = self.f(x)
        return h, self.g(torch.relu(h))


def test_a_result_is_not_overwritten_by_an_activation():
    torch.manual_seed(0)
    critic = Features().double()
    real, fake, eps = samples((5, 6))
    first = lambda x: critic(x)[0]  # noqa: E731
    wanted = gradients(double_backward(first, between(real, fake, eps).requires_grad_(), wgan)[0], critic)
    mine = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    assert distance(gradients(mine, critic), wanted) < 1e-10


def test_a_critic_that_changes_is_read_again():
    critic = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    real, fake, eps = samples((5, 6))
    for replacement in (nn.Tanh(), nn.GELU()):
        critic[1] = replacement
        wanted = gradients(double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0], critic)
        assert distance(gradients(penalty.gradient_penalty(critic, real, fake, eps=eps), critic), wanted) < 1e-10


@pytest.mark.parametrize("name", ["conv", "conditional", "residual"])
def test_a_critic_is_not_kept_alive(name):
    critic, shape, inputs = CRITICS[name]()
    real, fake, _ = samples(shape, torch.float32)
    penalty.gradient_penalty(critic, real, fake, inputs=inputs).backward()
    alive = weakref.ref(critic)
    del critic
    gc.collect()
    assert alive() is None


@pytest.mark.filterwarnings("ignore:ganfast.penalty:UserWarning")  # where it is the first to say so
def test_a_critic_that_falls_back_is_not_kept_alive():
    """What is remembered of it is a sentence: an exception would hold the frames of all calls, and their batches."""
    critic = Writes(True).double()
    real, fake, _ = samples((5, 6))
    penalty.gradient_penalty(critic, real, fake).backward()
    penalty.wgan_gp_step(critic, real, fake)
    critic.features = None
    alive = [weakref.ref(tensor) for tensor in (critic, real, fake)]
    del critic, real, fake
    gc.collect()
    assert [reference() for reference in alive] == [None, None, None]
