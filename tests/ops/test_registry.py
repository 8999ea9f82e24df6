"""The frame: choosing and forcing backends, the table, autocast, operators without a derivative, the short way."""

import os
import subprocess
import sys
import textwrap
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ganfast import errors, functional, ops
from ganfast.ops import _registry
from ganfast.ops.sigmoid_bce import sigmoid_bce


def run_python(code, **env):
    code = textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})


@pytest.fixture(scope="module")
def products():
    """A toy operator for each autocast rule: x·y in the dtype that it is given; not differentiable."""

    def make(name, rule):
        return ops.Op(
            f"{name}(Tensor x, Tensor y) -> Tensor",
            check=lambda x, y: None,
            fake=lambda x, y: torch.empty_like(x),
            reference=lambda x, y: x * y,
            backward="a toy",
            autocast=rule,
        )

    yield {rule: make(f"toy_{rule}", rule) for rule in (None, "lower", "float32")}
    for name in ("toy_None", "toy_lower", "toy_float32"):
        del _registry.OPS[name]


def test_table_has_a_row_with_an_answer_for_every_backend():
    rows = [row[1:] for row in ops.table() if row[0] == "sigmoid_bce"]
    assert [row[:2] for row in rows] == [
        ("cuda", "cuda"),
        ("cuda", "triton"),
        ("cuda", "reference"),
        ("cpu", "cpu"),
        ("cpu", "reference"),
    ]
    assert rows[-1][2] is True
    for _, _, answer in rows:
        assert answer is True or (isinstance(answer, str) and answer)


@pytest.mark.parametrize(
    ("backend", "dtype", "reason"),
    [
        ("cuda", torch.float32, "it runs on cuda, the tensors are on cpu"),
        ("triton", torch.float32, "it runs on cuda, the tensors are on cpu"),
        ("cpu", torch.float64, "float64 goes through the reference|ganfast._C"),
    ],
)
def test_a_forced_backend_that_cannot_run_says_why(backend, dtype, reason):
    x = torch.randn(4, dtype=dtype)
    for call in (sigmoid_bce, torch.ops.ganfast.sigmoid_bce):
        with (
            ops.use_backend(backend),
            pytest.raises(RuntimeError, match=f"cannot run on the forced backend '{backend}': ({reason})"),
        ):
            call(x, None, 1.0, 0.0)


def test_a_backend_that_an_operator_lacks_is_named(products):
    x = torch.randn(4)
    with ops.use_backend("cpu"), pytest.raises(RuntimeError, match=r"ganfast::toy_None .* it has no such backend"):
        products[None](x, x)


def test_an_unknown_backend_is_refused():
    with (
        pytest.raises(errors.InputError, match="GANFAST_BACKEND: got 'tpu', needs one of reference, cpu, cuda, triton"),
        ops.use_backend("tpu"),
    ):
        pass
    run = run_python("import ganfast.ops", GANFAST_BACKEND="tpu")
    assert run.returncode != 0
    assert "GANFAST_BACKEND: got 'tpu'" in run.stderr


def test_the_environment_forces_a_backend():
    code = """
        import torch
        from ganfast import functional
        print(functional.sigmoid_bce(torch.zeros(2), None).item())
    """
    run = run_python(code, GANFAST_BACKEND="reference")
    assert abs(float(run.stdout) - 0.6931472) < 1e-6
    run = run_python(code, GANFAST_BACKEND="triton")
    assert "cannot run on the forced backend 'triton'" in run.stderr


def test_without_the_extension_the_reference_runs_and_the_reason_is_told():
    run = run_python(
        """
        import sys
        sys.modules["ganfast._C"] = None
        import torch
        from ganfast import functional, ops
        print(functional.sigmoid_bce(torch.zeros(2), None).item())
        print([row[3] for row in ops.table() if row[:3] == ("sigmoid_bce", "cpu", "cpu")][0])
    """,
        GANFAST_BACKEND="",
    )
    loss, reason = run.stdout.splitlines()
    assert abs(float(loss) - 0.6931472) < 1e-6
    assert reason.startswith("ganfast._C")
    assert "pip install -v --no-build-isolation" in reason


def test_the_words_of_a_library_that_does_not_load_are_kept(tmp_path):
    run = run_python(f"""
        import pathlib, sysconfig
        import ganfast
        name = "_C" + sysconfig.get_config_var("EXT_SUFFIX")
        folder = pathlib.Path({str(tmp_path)!r})
        (folder / name).write_bytes(b"not a library")
        ganfast.__path__.insert(0, str(folder))
        from ganfast.ops import _extension
        print(_extension.cpu_ready())
    """)
    assert "ganfast._C does not load: " in run.stdout, run.stderr
    assert "file too short" in run.stdout or "invalid ELF header" in run.stdout


def test_importing_the_operators_is_light():
    run = run_python("""
        import sys, torch
        torch.library, torch.autograd
        before = set(sys.modules)
        import ganfast.functional, ganfast.nn
        print(*({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
    """)
    assert run.stdout.split() == ["ganfast"]  # 0.2 s is the goal


def test_eager_calls_pass_by_the_dispatcher_and_observed_ones_do_not():
    x = torch.randn(4, requires_grad=True)
    assert sigmoid_bce(x, None, 1.0, 0.0).grad_fn.name() == "ganfast_sigmoid_bceBackward"
    assert torch.ops.ganfast.sigmoid_bce(x, None, 1.0, 0.0).grad_fn.name() != "ganfast_sigmoid_bceBackward"

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        functional.sigmoid_bce(x, None)
    assert torch.ops.ganfast.sigmoid_bce.default in seen

    with FakeTensorMode() as mode:
        loss = functional.sigmoid_bce(mode.from_tensor(x), None)
    assert type(loss).__name__ == "FakeTensor"
    traced = torch.jit.trace(lambda t: functional.sigmoid_bce(t, None), (torch.randn(4),), check_trace=False)
    torch.testing.assert_close(traced(x), functional.sigmoid_bce(x, None))


def test_a_tensor_that_outlives_its_transform_is_the_constant_that_torch_takes_it_for():
    left = []
    torch.func.grad(lambda x: (left.append(2 * x), x.sum())[1])(torch.randn(4))
    loss, torchs = functional.sigmoid_bce(left[0], None), torch.nn.functional.softplus(-left[0]).mean()
    torch.testing.assert_close(loss, torchs)
    assert left[0].requires_grad and not loss.requires_grad and not torchs.requires_grad


def test_a_parameter_is_an_ordinary_tensor_and_inference_mode_works():
    p = torch.nn.Parameter(torch.randn(4))
    assert functional.sigmoid_bce(p, None).grad_fn.name() == "ganfast_sigmoid_bceBackward"
    with torch.inference_mode():
        assert functional.sigmoid_bce(p, None).is_inference()
    with torch.no_grad():
        assert not functional.sigmoid_bce(p, None).requires_grad


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_rules(products, compiled):
    x, wide = torch.randn(4), torch.randn(4, dtype=torch.float64)
    half = x.bfloat16()
    call = {rule: torch.compile(op, fullgraph=True) if compiled else op for rule, op in products.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert call["lower"](x, x).dtype == torch.bfloat16
        assert call["lower"](wide, wide).dtype == torch.float64  # as torch's own: fp64 is left alone
        assert call["float32"](half, half).dtype == torch.float32
        assert call[None](half, half).dtype == torch.bfloat16
        assert call[None](x, x).dtype == torch.float32
    assert call["lower"](x, x).dtype == torch.float32
    assert call["float32"](half, half).dtype == torch.bfloat16


def test_an_operator_without_a_derivative_raises_in_the_backward_only(products):
    x = torch.randn(3, requires_grad=True)
    for call in (products[None], torch.ops.ganfast.toy_None):
        out = call(x, x)
        with pytest.raises(NotImplementedError, match="ganfast::toy_None has no derivative: a toy"):
            out.sum().backward()


@pytest.fixture(scope="module")
def toy():
    """A toy operator that counts its checks and where it ran."""
    seen = {}

    def check(x, scale):
        seen["checks"] += 1
        if x.shape[0] == 3:
            raise ValueError("x: got 3 rows")

    def reference(x, scale):
        seen["ran"].append("reference")
        return x * scale[0]

    op = ops.Op(
        "toy_counting(Tensor x, float[] scale) -> Tensor",
        check=check,
        fake=lambda x, scale: torch.empty_like(x),
        reference=reference,
        backward=lambda ctx, g: (g, None),
    )
    yield op, seen
    del _registry.OPS["toy_counting"]


@pytest.fixture
def counting(toy):
    op, seen = toy
    op._plans.clear()
    seen.update(checks=0, ran=[])
    return op, seen


def test_a_signature_is_checked_once_and_what_it_refuses_always(counting):
    op, seen = counting
    x = torch.randn(4, 2)
    for _ in range(3):
        op(x, [2.0])
    assert seen["checks"] == 1
    others = [(x.t().contiguous().t(), [2.0]), (x.double(), [2.0]), (x, [3.0]), (x[:2], [2.0])]
    for n, args in enumerate(others, 2):
        op(*args)
        assert seen["checks"] == n
    for _ in range(2):
        with pytest.raises(ValueError, match="got 3 rows"):
            op(x[:3], [2.0])
    assert seen["checks"] == len(others) + 3


def test_a_call_through_the_dispatcher_is_planned_too(counting):
    op, seen = counting
    x = torch.randn(4, 2)
    for _ in range(3):
        op.overload(x, [2.0])
    assert seen["checks"] == 1
    with pytest.raises(ValueError, match="got 3 rows"):
        op.overload(x[:3], [2.0])


def test_plans_hold_no_tensors():
    x = torch.randn(3, 6)[:, ::2]  # a copy of which is taken
    results = [weakref.ref(t) for t in functional.gradient_penalty_terms(x)]
    argument = weakref.ref(x)
    del x
    assert argument() is None and all(result() is None for result in results)


def test_results_of_the_reference_are_as_announced():
    """Strides are those of fake, an absent result is empty; under torch.func strides are the reference's."""
    op = ops.Op(
        "toy_layouts(Tensor x, bool both) -> (Tensor, Tensor)",
        check=lambda x, both: None,
        fake=lambda x, both: (x.new_empty(x.shape), x.new_empty(x.shape if both else 0)),
        reference=lambda x, both: ((2 * x.mT).mT, x.t().clone().t() if both else None),
        backward="a toy",
    )
    try:
        x = torch.randn(3, 4)
        for call in (op, op.overload):
            for both in (True, False):
                a, b = call(x.t().clone().t(), both)
                assert a.is_contiguous() and torch.equal(a, 2 * x)
                assert b.is_contiguous() and (torch.equal(b, x) if both else b.shape == (0,))
        mapped, empty = torch.func.vmap(lambda row: op(row, False))(torch.stack((x, 3 * x)))
        assert torch.equal(mapped[1], 6 * x) and empty.shape == (2, 0)
    finally:
        del _registry.OPS["toy_layouts"]


def test_a_plan_knows_whether_gradients_are_made(counting):
    op, _ = counting
    x = torch.randn(4, 2)
    leaf = x.clone().requires_grad_()
    assert not op(x, [1.0]).requires_grad
    assert op(leaf, [1.0]).requires_grad
    with torch.no_grad():
        assert not op(leaf, [1.0]).requires_grad
    assert op(leaf, [1.0]).grad_fn.name() == "ganfast_toy_countingBackward"


def test_plans_are_bounded_and_what_is_not_hashable_is_refused_by_the_check(counting, monkeypatch):
    op, _ = counting
    monkeypatch.setattr(_registry, "MOST_PLANS", 8)
    for n in range(30):
        op(torch.randn(4, 2), [float(n)])
    assert len(op._plans) <= 8
    with pytest.raises(ValueError, match="weight: got nan, needs a finite number"):
        functional.gradient_penalty(torch.randn(4, 2), weight=float("nan"))
    with pytest.raises(TypeError, match="weight: got dict, needs a number"):
        functional.gradient_penalty(torch.randn(4, 2), weight={})


def test_a_forced_backend_has_plans_of_its_own(counting):
    op, seen = counting
    x = torch.randn(4, 2)
    op(x, [1.0])
    with ops.use_backend("cpu"), pytest.raises(RuntimeError, match="it has no such backend"):
        op(x, [1.0])
    with ops.use_backend("reference"):
        op(x, [1.0])
    assert seen["ran"] == ["reference"] * 2


def test_threads_do_not_take_each_others_plans():
    """Forward runs what its own thread has handed over."""
    from concurrent.futures import ThreadPoolExecutor

    def work(n):
        x = torch.full((n + 1,), 0.0, requires_grad=True)
        return all(functional.sigmoid_bce(x, None).item() == pytest.approx(0.6931472) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_once_remembers_results_and_no_errors():
    calls = []

    @_registry.once
    def function(x, name):
        calls.append(name)
        if name == "bad":
            raise ValueError(name)
        return None if name == "none" else x.shape[0]

    x = torch.randn(3)
    assert [function(x, "none") for _ in range(2)] == [None] * 2
    assert [function(x, "rows") for _ in range(2)] == [3] * 2
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            function(x, "bad")
    assert calls == ["none", "rows", "bad", "bad"]
    function(x.double(), "rows"), function(x[:2], "rows"), function(x, ("rows",))
    assert calls[4:] == ["rows", "rows", ("rows",)]
    assert [function(x, {}) for _ in range(2)] == [3] * 2  # not hashable: called each time
    assert calls[7:] == [{}, {}]
