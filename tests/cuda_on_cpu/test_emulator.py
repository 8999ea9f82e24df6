"""The emulator itself: what it gives a kernel, and the sentence for each way to go wrong."""

import ctypes

import pytest
from cuda_on_cpu import build, guard, plugin, translate

SIZE = 1024


@pytest.fixture
def launch(faults_library):
    """launch(kernel of faults.cu, order): 1024 floats, zeros before, and the sentence; in guarded memory."""
    library, emulator = ctypes.CDLL(str(faults_library)), plugin.Emulator(str(faults_library))
    library.run.restype = ctypes.c_char_p

    def run(name, order="threads"):
        emulator.set_order(order)
        floats = (ctypes.c_float * SIZE)()
        copy = guard.Copy(ctypes.addressof(floats), ctypes.sizeof(floats), at_end=True)
        sentence = library.run(name.encode(), ctypes.c_void_p(copy.pointer)).decode()
        copy.back()
        copy.free()
        return list(floats), sentence

    yield run
    emulator.set_order("threads")


@pytest.mark.parametrize("order", plugin.ORDERS)
def test_every_thread_of_every_block_runs_once(order, launch):
    out, sentence = launch("coordinates", order)
    count = 2 * 3 * 4 * 5 * 2 * 3
    assert (out, sentence) == ([*map(float, range(count)), *[0.0] * (SIZE - count)], "")


@pytest.mark.parametrize("order", plugin.ORDERS)
def test_shuffles(order, launch):
    out, sentence = launch("shuffles", order)
    lanes = range(32)
    assert sentence == ""
    assert out[:32] == [i + 3 if i % 8 < 5 else i for i in lanes]
    assert out[32:64] == [i - 3 if i % 8 >= 3 else i for i in lanes]
    assert out[64:96] == [i ^ 9 for i in lanes]
    assert out[96:128] == [i // 8 * 8 + 5 for i in lanes]
    assert out[128:160] == [(i ^ 2) if i % 2 else 0 for i in lanes]


def test_dynamic_shared_memory(launch):
    assert launch("turned") == ([*map(float, range(99, -1, -1)), *[0.0] * (SIZE - 100)], "")


def test_shared_memory_holds_nan_until_it_is_written(launch):
    out, _ = launch("not_written")
    assert [i for i in range(64) if out[i] != out[i]] == [7]


def test_a_missing_barrier_shows_in_the_results(launch):
    results = [launch("no_barrier", order)[0] for order in plugin.ORDERS]
    assert all(str(out[:64]) != str([63.0 - i for i in range(64)]) for out in results)


@pytest.mark.parametrize(
    ("kernel", "lane", "words"),
    [
        ("two_barriers", 0, "waits in a barrier while thread (16, 0, 0) waits in another one, faults.cu:"),
        ("early_exit", 0, "waits for lane 3, which its mask names and which has left"),
        ("other_shuffle", 0, "waits for lane 16, which is in another warp operation, faults.cu:"),
        ("not_in_its_mask", 16, "takes part in a warp operation whose mask 0xffff does not name it"),
        ("reads_outside_its_mask", 0, "reads lane 16, which takes no part"),
        ("deadlock", 0, "waits in a barrier while thread (16, 0, 0) waits for its warp in faults.cu:"),
        ("misaligned_load", 0, "which is not a multiple of 16"),
        ("misaligned_store", 0, "which is not a multiple of 16"),
        ("null_store", 5, "follows a null pointer"),
        ("wild_store", 0, "where it has no memory"),
        ("beyond_shared", 63, "where it has no memory"),
        ("beyond_array", 4, "indexes an array beyond its end"),
        ("overflow", 1, "overflows a signed sum"),
    ],
)
def test_each_fault_is_one_sentence_with_its_place(kernel, lane, words, launch):
    text = (build.HERE / "faults" / "faults.cu").read_text()
    start = text.index(f"void {kernel}(")
    first, last = (text.count("\n", 0, at) + 1 for at in (start, text.index("void ", start + 1)))
    for order in ("threads", "warps"):
        sentence = launch(kernel, order)[1]
        assert f": block (0, 0, 0), thread ({lane}, 0, 0) of {kernel}, launched in faults.cu:" in sentence
        assert words in sentence and "\n" not in sentence
        name, line = sentence.split(": ")[0].rsplit(":", 1)
        assert name.endswith("faults.cu") and first <= int(line) < last, sentence
    assert launch("turned")[1] == ""  # the next launch is as good as new


def test_a_block_that_no_device_takes_is_refused(launch):
    assert launch("large_block")[1].endswith("coordinates: no such grid or block: (1, 1, 1), (1025, 1, 1)")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("atomicAdd(p, 1.f);", r"a\.cu:2: tests/cuda_on_cpu does not know atomic operations: atomicAdd"),
        ('asm("mov.u32 %0, %laneid;" : "=r"(x));', "does not know this inline assembly: asm"),
        ("auto g = cooperative_groups::this_grid();", "does not know cooperative groups"),
        ("kernel<<<1, 2, 3, 4, 5>>>(p);", "does not know such a launch: kernel<<<1, 2, 3, 4, 5>>>"),
        ("__shared__ struct { int a; } s;", "does not know such shared memory"),
    ],
)
def test_unknown_cuda_is_named(line, words):
    with pytest.raises(translate.UnknownCudaError, match=words):
        translate.translate("a.cu", f"// atomicAdd(p) in a comment\n{line}\n")


def test_an_unknown_function_is_named(tmp_path, faults_library):
    (tmp_path / "a.cu").write_text("__global__ void kernel(int* p) { *p = __ballot_sync(~0u, 1); }\n")
    with pytest.raises(build.CannotBuildError, match=r"a\.cu:1:.*__ballot_sync"):
        build.library(tmp_path)
