"""Critics as people write them: what is traced, what takes double backward and says why, what is read again."""

import gc
import random
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from penalty.truth import CRITICS, between, distance, double_backward, gradients, grads, samples, wgan
from torch import nn

from ganfast import penalty
from ganfast.penalty.program import program_of


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
    "in place": (adds_in_place, "add in place, over an input that is used again"),
    "in place, a view": (adds_to_a_view, "mul in place, over an input that is used again"),
    "random": (draws, "its forward draws random numbers, which would stay the same"),
    "tensor": (makes_a_tensor, "its forward makes a tensor, which would stay the same"),
    "branch": (branches, "torch.fx cannot trace"),
    "no rule": (accumulates, "cumprod has no rule"),
    "no_grad": (holds_still, "turns gradients or autocast on or off"),
    "autocast": (leaves_autocast, "turns gradients or autocast on or off"),
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_what_cannot_be_traced_takes_double_backward(body):
    function, reason = BODIES[body]
    critic = Written(function).double()
    with pytest.raises(penalty.NoRuleError, match=reason):
        penalty.gradient_penalty(critic, torch.randn(5, 6).double(), torch.randn(5, 6).double(), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(critic, strict=False)


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


def test_a_forward_put_on_a_layer_counts():
    critic = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    critic[1].forward = torch.tanh
    with pytest.raises(penalty.NoRuleError, match="ReLU with a forward of its own"):
        check(critic)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(critic, strict=False)


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


def test_norms_of_other_shapes_raise():
    real, fake, _ = samples((5, 6), torch.float32)
    for norm, reason in (
        (nn.InstanceNorm1d(8), r"InstanceNorm1d got \(5, 8\), needs \[batch, channels\] and 1 more"),
        (nn.LayerNorm((5, 8)), r"LayerNorm over \(5, 8\) got \(5, 8\), needs \(batch"),
        (nn.LayerNorm(4), r"LayerNorm over \(4,\) got"),
    ):
        with pytest.raises(ValueError, match=reason):
            penalty.gradient_penalty(nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 1)), real, fake)


def test_hooks_count_on_a_lone_layer_and_in_a_compiled_step():
    real, fake, eps = samples((5, 6), torch.float32)
    critic = nn.Linear(6, 1)
    critic.register_forward_hook(lambda module, inputs, output: 3 * output)
    with pytest.raises(penalty.NoRuleError, match="Linear with hooks"):
        penalty.gradient_penalty(critic, real, fake, strict=True)
    critic = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), critic)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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


def test_results_that_are_read_again_and_properties_without_a_rule():
    torch.manual_seed(0)
    critic = Transposed().double()
    real, fake, eps = samples((6, 5, 4))
    wanted = gradients(double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0], critic)
    with pytest.raises(penalty.NoRuleError, match=r"getattr\(\) has no rule"):
        penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert distance(gradients(penalty.gradient_penalty(critic, real, fake, eps=eps), critic), wanted) < 1e-10


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
    wanted = gradients(double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0], critic)
    mine = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    assert distance(gradients(mine, critic), wanted) < 1e-10


class Odd(nn.Module):
    def forward(self, x):
        return x.cumsum(1)


def test_a_layer_without_a_rule_falls_back_and_says_so_once():
    critic = nn.Sequential(nn.Linear(6, 8), Odd(), nn.Tanh(), nn.Linear(8, 1)).double()
    real, fake, eps = samples((5, 6))
    wanted = gradients(double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0], critic)
    with pytest.warns(UserWarning, match=r"cumsum.* has no rule, so Sequential takes torch's double backward"):
        got = gradients(penalty.gradient_penalty(critic, real, fake, eps=eps), critic)
    assert distance(got, wanted) < 1e-10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = penalty.wgan_gp_step(critic, real, fake, eps=eps)
        with torch.no_grad():
            assert not penalty.gradient_penalty(critic, real, fake, eps=eps).requires_grad
    assert bool(step.loss.isfinite())
    with pytest.raises(penalty.NoRuleError, match=r"cumsum.* has no rule; name one with ganfast.penalty.register"):
        penalty.gradient_penalty(critic, real, fake, strict=True)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.act = nn.Linear(6, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.f(x)
        return self.act(h) + h


def test_other_reasons_to_fall_back():
    real, fake, _ = samples((5, 6), torch.float32)
    with pytest.raises(penalty.NoRuleError, match="in place, over an input"):
        penalty.gradient_penalty(InPlace(), real, fake, strict=True)
    critic = nn.Sequential(nn.Linear(6, 1))
    penalty.gradient_penalty(critic, real, fake, strict=True)
    critic[0].register_forward_hook(lambda *args: None)
    with pytest.raises(penalty.NoRuleError, match=r"Linear with hooks"):
        penalty.gradient_penalty(critic, real, fake, strict=True)


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
def test_a_critic_without_a_program_is_not_kept_alive_and_its_error_does_not_grow():
    """What is remembered of it is a sentence: an exception would hold the frames of all calls, and their batches."""
    critic = Written(draws).double()
    real, fake, _ = samples((5, 6))
    depths = []
    for _ in range(3):
        with pytest.raises(penalty.NoRuleError, match="draws random numbers") as caught:
            program_of(critic)
        depths.append(len(caught.traceback))
        del caught
    assert depths[0] == depths[1] == depths[2]
    penalty.gradient_penalty(critic, real, fake).backward()
    penalty.wgan_gp_step(critic, real, fake)
    alive = [weakref.ref(tensor) for tensor in (critic, real, fake)]
    del critic, real, fake
    gc.collect()
    assert [reference() for reference in alive] == [None, None, None]
