"""A critic's WGAN-GP step: double backward, compiled nested torch.func.grad, the drop-in penalty and the merged step.

pytest bench/test_penalty.py --benchmark-only

Each is taken in turns, so that a busy machine slows all alike; the figures are medians of ratios of neighbours. Double
backward is taken in both memory orders, and has to be beaten in both. "joint" takes real and fake in one call, which
makes torch faster than what people write; it has bars where we keep them. Memory is the largest sum of live CPU
tensors, as torch's profiler counts it.

pytest bench/test_penalty.py --benchmark-only -q -k critics takes the critics of papers (critics.py) and prints a table.
"""

import itertools
import time

import critics
import frame
import nets
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ganfast import penalty
from ganfast.models.resnet import Discriminator

pytestmark = pytest.mark.full  # it compiles for minutes, and its bars want a quiet machine; test_steps.py has the rows
ROUNDS = 7


def conv_critic(width=64):
    widths = (3, width, 2 * width, 4 * width, 8 * width)
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4), nn.Flatten())


CRITICS = {
    "conv": (conv_critic, (32, 3, 64, 64)),
    "resnet": (lambda: nets.ResNetCritic(64), (16, 3, 32, 32)),
    "narrow resnet": (lambda: nets.ResNetCritic(16), (16, 3, 32, 32)),
    "resnet, GroupNorm": (lambda: Discriminator(32, 3, 32), (16, 3, 32, 32)),
}


def wasserstein(scores, real, fake, joint):
    of_real, of_fake = scores(torch.cat([real, fake])).chunk(2) if joint else (scores(real), scores(fake))
    return of_real.mean() - of_fake.mean()


def loss(scores, gradient, real, fake, eps, joint):
    eps = eps[:, None, None, None]
    g = gradient(eps * real + (1 - eps) * fake)
    return 10 * (g.flatten(1).norm(dim=1) - 1).square().mean() - wasserstein(scores, real, fake, joint)


def candidates(critic, data):
    real, fake, eps = data

    def autograd_gradient(x):
        x = x.requires_grad_()
        return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]

    def eager(joint=False):
        loss(critic, autograd_gradient, real, fake, eps, joint).backward()

    def drop_in(joint=False):
        value = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
        (value - wasserstein(critic, real, fake, joint)).backward()

    def step():
        penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)

    parameters = dict(critic.named_parameters())

    def functional_loss(parameters, joint):
        def scores(x):
            return functional_call(critic, parameters, (x,))

        return loss(scores, grad(lambda x: scores(x).sum()), real, fake, eps, joint)

    def by_func(joint):
        compiled = torch.compile(grad(lambda parameters: functional_loss(parameters, joint)))

        def update():
            for name, g in compiled({k: v.detach() for k, v in parameters.items()}).items():
                parameters[name].grad = g

        return update

    return {
        "eager": eager, "joint eager": lambda: eager(True), "drop_in": drop_in, "joint drop_in": lambda: drop_in(True),
        "step": step, "compiled step": torch.compile(step, fullgraph=True), "compiled func": by_func(False),
        "joint compiled func": by_func(True),
    }  # fmt: skip


def gradients(critic, function):
    critic.zero_grad()
    function()
    return torch.cat([p.grad.flatten() for p in critic.parameters()])


def seconds(critic, function):
    critic.zero_grad()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak(critic, function):
    """Bytes alive at once during the function."""
    critic.zero_grad()
    return frame.peak_memory(function, (), "cpu")


def prepared(name, chosen):
    """{name: (critic, function)}, in channels_last but where the name says NCHW; all have the same gradients."""
    make, shape = CRITICS[name]
    torch.manual_seed(0)
    real, fake, eps = torch.randn(shape), torch.randn(shape), torch.rand(shape[0])
    found = {}
    for layout, ending in ((torch.channels_last, ""), (torch.contiguous_format, " NCHW")):
        torch.manual_seed(1)
        critic = make().to(memory_format=layout)
        data = real.to(memory_format=layout), fake.to(memory_format=layout), eps
        for k, function in candidates(critic, data).items():
            if k + ending in chosen:
                found[k + ending] = critic, function
    wanted = gradients(*found["eager"])
    for other, pair in found.items():
        error = float((gradients(*pair) - wanted).norm() / wanted.norm())
        assert error < 1e-3, other  # sums in another order change the sign of some that are almost 0
    return found


NONE = 0.0  # reported alone
BARS_OF_CONV = {
    "eager / step": 1.25, "eager NCHW / step": 1.25, "joint eager / step": NONE, "eager / drop_in": 1.0,
    "eager NCHW / drop_in NCHW": 1.0, "eager / compiled step": 1.4, "joint eager / compiled step": NONE,
    "compiled func / compiled step": 1.5, "joint compiled func / compiled step": NONE,
}  # fmt: skip
BARS_OF_NORMS = {
    f"{joint}eager{a} / step{b}": 1.15 for joint in ("", "joint ") for a in ("", " NCHW") for b in ("", " NCHW")
} | {f"{joint}eager{a} / {joint}drop_in{a}": 1.0 for joint in ("", "joint ") for a in ("", " NCHW")}


@pytest.mark.parametrize("name, compiled", [*((name, False) for name in CRITICS), ("conv", True)])
def test_a_step_beats_double_backward(benchmark, name, compiled):
    bars = BARS_OF_CONV if name == "conv" else BARS_OF_NORMS
    pairs = [pair for pair in bars if compiled == ("compiled" in pair)]
    functions = prepared(name, {"eager", *(one for pair in pairs for one in pair.split(" / "))})

    def ratios():
        times = [{k: seconds(*f) for k, f in functions.items()} for _ in range(ROUNDS)]
        return {p: frame.quartiles(t[p.split(" / ")[0]] / t[p.split(" / ")[1]] for t in times) for p in pairs}

    found = benchmark.pedantic(ratios)
    benchmark.extra_info.update(found)
    for pair, (_, ratio, _) in found.items():
        assert ratio >= bars[pair], f"{pair}: {ratio:.2f}"


@pytest.mark.parametrize("name", CRITICS)
def test_a_step_takes_no_more_memory(benchmark, name):
    functions = prepared(name, ["eager", "eager NCHW", "step", "step NCHW"])
    sizes = benchmark.pedantic(lambda: {k: peak(*f) for k, f in functions.items()})
    benchmark.extra_info.update({k: size / 2**20 for k, size in sizes.items()})
    assert 0 < max(sizes["step"], sizes["step NCHW"]) <= min(sizes["eager"], sizes["eager NCHW"])


# --- critics of papers ------------------------------------------------------------------------------------------------

ORDERS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def of_a_paper(name, order, same_passes=False, dtype=torch.float32):
    """(critic, by double backward, by the step); with ``same_passes`` each pass has the same weights and no dropout."""
    critic, inputs = critics.made(name)
    _, shape = critics.CRITICS[name]
    critic = critic.to(memory_format=ORDERS[order])
    torch.manual_seed(0)
    real, fake = (torch.randn(shape).to(dtype, memory_format=ORDERS[order]) for _ in range(2))
    eps = torch.rand(shape[0]).to(dtype)
    layers = [m for m in critic.modules() if m._forward_pre_hooks or nn.utils.parametrize.is_parametrized(m)]
    for _ in range(10 if same_passes and layers else 0):  # power iterations
        with torch.no_grad():
            critic(real[:2].float(), *(i[:2] for i in inputs))
    critic = critic.to(dtype)
    for layer in [*layers, *(m for m in critic.modules() if isinstance(m, nn.Dropout2d))] if same_passes else ():
        layer.eval()

    def eager():
        with sdpa_kernel(SDPBackend.MATH):  # torch's other attentions have no second derivative
            x = (eps[:, None, None, None] * real + (1 - eps[:, None, None, None]) * fake).requires_grad_()
            (g,) = torch.autograd.grad(critic(x, *inputs).sum(), x, create_graph=True)
            term = 10 * (g.flatten(1).norm(dim=1) - 1).square().mean()
            (term + critic(fake, *inputs).mean() - critic(real, *inputs).mean()).backward()

    def step(strict=False):
        penalty.wgan_gp_step(critic, real, fake, eps=eps, inputs=inputs, strict=strict)

    return critic, eager, step


def orders_of(name):
    """Those that the critic takes: a view needs NCHW."""
    try:
        of_a_paper(name, "channels_last")[1]()
    except RuntimeError:
        return ["NCHW"]
    return list(ORDERS)


def way_of(name):
    """How the step goes: by rules, or why not."""
    step = of_a_paper(name, "NCHW")[-1]
    try:
        step(strict=True)
    except penalty.NoRuleError as error:
        return str(error).removeprefix("critic: ").split(" has no rule")[0]
    return "by rules"


@pytest.fixture(scope="module")
def table(request):
    """Writes a line at once, past what pytest captures."""
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def write(name, *cells):
        with capture.global_and_fixture_disabled():
            print(f"\n{name:34}" + "".join(f"{cell:>9}" for cell in cells[:-1]), cells[-1][:90], end="  ", flush=True)

    write("torch / step", "step ms", "NCHW", "ch_last", "both cl", "bar", "torch's", "error", "way")
    return write


@pytest.mark.filterwarnings("ignore:ganfast.penalty:UserWarning")
@pytest.mark.parametrize("name", critics.CRITICS)
def test_critics_of_papers(benchmark, table, name):
    """The step of a critic in NCHW against torch in both orders, and both in channels_last."""
    orders, bar = orders_of(name), critics.BARS.get(name, 1.0)
    wanted = gradients(*of_a_paper(name, "NCHW", True, torch.float64)[:2])
    critic, *both = of_a_paper(name, "NCHW", True)
    error_of_torch, error = (float((gradients(critic, f) - wanted).norm() / wanted.norm()) for f in both)
    functions = {}
    for order in orders:
        critic, eager, step = of_a_paper(name, order)
        functions |= {f"torch {order}": (critic, eager), f"step {order}": (critic, step)}
    pairs = [(f"torch {order}", "step NCHW") for order in orders]
    if len(orders) == 2:
        pairs.append(("torch channels_last", "step channels_last"))

    def ratios():
        for function in functions.values():  # what is chosen or allocated at first
            seconds(*function)
        times = [{k: seconds(*f) for k, f in functions.items()} for _ in range(ROUNDS)]
        found = [frame.quartiles(t[a] / t[b] for t in times) for a, b in pairs]
        return frame.quartiles(t["step NCHW"] for t in times)[1], found

    own, found = benchmark.pedantic(ratios)
    medians = [median for _, median, _ in found]
    cells = [f"{m:.2f}" for m in medians] + ["-"] * (3 - len(medians))
    table(name, f"{own * 1e3:.0f}", *cells, f"{bar:.2f}", f"{error_of_torch:.0e}", f"{error:.0e}", way_of(name))
    benchmark.extra_info.update({" / ".join(pair): quartiles for pair, quartiles in zip(pairs, found)})
    assert error < max(1e-3, 2 * error_of_torch)  # rounding changes the sign of some that are almost 0
    assert min(medians) >= bar, dict(zip(pairs, medians))


def test_nine_critics_in_ten_go_by_rules(benchmark):
    ways = benchmark.pedantic(lambda: {name: way_of(name) for name in critics.CRITICS})
    aside = {name: way for name, way in ways.items() if way != "by rules"}
    assert len(aside) <= 0.1 * len(ways), aside
