"""Batches in static memory: those of the sampler, whatever lies where."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from ganfast.data import Dataset, Loader, Sampler

CPU = torch.device("cpu")
PLACES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def noise(count=50, size=16, channels=3):
    return Dataset("noise", images=torch.randint(256, (count, size, size, channels), dtype=torch.uint8))


def several(count=50):
    """Images, their targets, classes, attributes, tokens, audio and clips."""
    return Dataset(
        "several",
        images=torch.randint(256, (count, 16, 16, 3), dtype=torch.uint8),
        targets=torch.randint(256, (count, 16, 16, 1), dtype=torch.uint8),
        labels=torch.randint(7, (count,)),
        attributes=torch.randn(count, 5),
        tokens=torch.randint(99, (count, 4)),
        audio=torch.randint(-(2**15), 2**15, (count, 12), dtype=torch.int16),
        clips=torch.randint(256, (count, 2, 4, 6, 3), dtype=torch.uint8),
    )


def equal(batch, other):
    """Whether two batches have the same columns, in that order, of the same values."""
    return list(batch) == list(other) and all(torch.equal(batch[k].cpu(), other[k].cpu()) for k in batch)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("make", [noise, several])
@pytest.mark.parametrize("place", PLACES)
def test_the_batches_of_the_sampler_in_memory_that_stays(place, make, resident, flip):
    data = make()
    plain, device = Sampler(data, 16, seed=5, flip=flip), torch.device(place)
    loader = Loader(Sampler(data, 16, seed=5, flip=flip), 3, device, resident)
    addresses = [buffer.data_ptr() for buffer in loader.buffers.values()]
    for step in range(5):  # 15 batches of 16: epochs end within batches
        loader.load()
        assert loader.position == (step + 1) * 48
        for k in range(3):
            batch = loader.batch(k)
            assert batch["images"].is_contiguous(memory_format=torch.channels_last)
            assert {values.device.type for values in batch.values()} == {place} and equal(batch, plain.next())
    assert [buffer.data_ptr() for buffer in loader.buffers.values()] == addresses
    plain.position = loader.position = 7
    loader.load()
    assert equal(loader.batch(0), plain.next())


@pytest.mark.parametrize("make", [noise, several])
@pytest.mark.parametrize("resident", [2**30, 0])
def test_the_shares_of_all_ranks_are_the_batch(resident, make):
    data = make()
    whole = Loader(Sampler(data, 12, seed=1, flip=True), 2, CPU)
    shares = [Loader(Sampler(data, 12, 1, True), 2, CPU, resident, (rank, 3)) for rank in range(3)]
    for _ in range(3):
        whole.load()
        for share in shares:
            share.load()
        for k in range(2):
            parts = [share.batch(k) for share in shares]
            assert equal({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, whole.batch(k))


def test_points_come_unchanged():
    data = Dataset("points", points=torch.randn(10, 2))
    for resident in (2**30, 0):
        loader = Loader(Sampler(data, 10, seed=0), 1, CPU, resident)
        loader.load()
        assert torch.equal(loader.batch(0)["points"].sort(0).values, data.samples.sort(0).values)


@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("columns", [("images",), ("targets", "labels"), ("tokens",)])
def test_only_the_wanted_columns_are_moved(columns, resident):
    data = several()
    plain, loader = Sampler(data, 8, 3, True), Loader(Sampler(data, 8, 3, True), 2, CPU, resident, columns=columns)
    assert set(loader.buffers) == {"flips", *(("rows",) if resident else columns)}
    assert tuple(loader.on_device) == (columns if resident else ())
    loader.load()
    for k in range(2):
        whole = plain.next()
        assert equal(loader.batch(k), {name: whole[name] for name in columns})


def test_whether_columns_are_resident_is_a_matter_of_those_that_are_wanted():
    data = several()
    size = data.columns["labels"].nbytes
    for resident, columns, expected in ((size, ("labels",), True), (size - 1, ("labels",), False), (size, None, False)):
        assert Loader(Sampler(data, 8, 3), 1, CPU, resident, columns=columns).resident is expected


@pytest.mark.parametrize("resident", [2**30, 0])
def test_images_and_targets_are_mirrored_alike(resident):
    images = torch.randint(256, (40, 8, 8, 1), dtype=torch.uint8)
    data = Dataset("pairs", images=images, targets=images.clone())
    loader = Loader(Sampler(data, 40, seed=0, flip=True), 1, CPU, resident)
    loader.load()
    batch, plain = loader.batch(0), Sampler(data, 40, seed=0).next()
    assert torch.equal(batch["images"], batch["targets"]) and not torch.equal(batch["images"], plain["images"])


def coordinates(count=30, height=11, width=9):
    """Pictures whose values are row and column, with their negatives as targets, and the picture's number as label."""
    down, across = torch.arange(height, dtype=torch.uint8), torch.arange(width, dtype=torch.uint8)
    image = torch.stack(torch.meshgrid(down, across, indexing="ij"), 2)
    images = image.expand(count, -1, -1, -1).contiguous()
    return Dataset("coordinates", images=images, targets=255 - images, labels=torch.arange(count))


def pixels(images):
    """uint8 [B, H, W, C] of what a network sees."""
    return ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("place", PLACES)
def test_crops_at_random_places_are_alike_on_both_sides_and_depend_on_the_position_alone(place, resident):
    data, device = coordinates().cropped(6, 4), torch.device(place)
    assert data.shape == (2, 6, 4) and data.samples[0, 0, 0].tolist() == [2, 2]  # the centre
    plain = Sampler(data, 10, seed=3, flip=True, crop=True)
    loader = Loader(Sampler(data, 10, seed=3, flip=True, crop=True), 3, device, resident)
    corners, flipped = set(), set()
    for _ in range(16):  # 48 batches of 10 are 16 epochs
        loader.load()
        for k in range(3):
            batch = loader.batch(k)
            assert equal(batch, plain.next()) and batch["images"].is_contiguous(memory_format=torch.channels_last)
            images = pixels(batch["images"].cpu())
            assert torch.equal(pixels(batch["targets"].cpu()), 255 - images)
            assert images.shape == (10, 6, 4, 2)
            for image in images.int():
                flipped.add(bool(image[0, 0, 1] > image[0, -1, 1]))
                image = image.flip(1) if image[0, 0, 1] > image[0, -1, 1] else image
                corner = tuple(image[0, 0].tolist())
                assert torch.equal(image[..., 0], torch.arange(corner[0], corner[0] + 6).int()[:, None].expand(6, 4))
                assert torch.equal(image[..., 1], torch.arange(corner[1], corner[1] + 4).int().expand(6, 4))
                corners.add(corner)
    assert corners == {(y, x) for y in range(6) for x in range(6)} and flipped == {False, True}
    plain.position = loader.position = 17
    loader.load()
    assert equal(loader.batch(0), plain.next())


def test_crops_leave_the_order_and_the_flips_as_they_were_and_the_centre_where_nobody_trains():
    whole = coordinates()
    data = whole.cropped(6, 4)
    cropping, central = Sampler(data, 8, 1, True, crop=True), Sampler(data, 8, 1, True)
    assert all(torch.equal(a, b) for a, b in zip(cropping.draw(0, 90)[:2], Sampler(whole, 8, 1, True).draw(0, 90)[:2]))
    batch = central.next()
    assert torch.equal(batch["labels"], cropping.next()["labels"])
    plain = Sampler(whole, 8, 1, True).next()
    assert torch.equal(batch["images"][:, 0], plain["images"][:, 0, 2:8, 2:6])  # rows are not mirrored
    other = Sampler(data, 8, 2, crop=True)  # an unpaired set has a seed of its own
    assert not torch.equal(other.draw(0, 30)[2], cropping.draw(0, 30)[2])


def test_the_shares_of_all_ranks_have_the_crops_of_the_batch():
    data = coordinates().cropped(6, 4)
    whole = Loader(Sampler(data, 12, 1, crop=True), 2, CPU)
    shares = [Loader(Sampler(data, 12, 1, crop=True), 2, CPU, 2**30, (rank, 3)) for rank in range(3)]
    for loader in (whole, *shares):
        loader.load()
    for k in range(2):
        parts = [share.batch(k) for share in shares]
        assert equal({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, whole.batch(k))


@pytest.mark.gpu
def test_a_cuda_graph_holds_crops():
    device = torch.device("cuda")
    data = coordinates().cropped(6, 4)
    plain, loader = Sampler(data, 10, 3, True, crop=True), Loader(Sampler(data, 10, 3, True, crop=True), 1, device)
    loader.load()
    assert equal(loader.batch(0), plain.next())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch = loader.batch(0)
    for _ in range(3):
        loader.load()
        graph.replay()
        assert equal(batch, plain.next())


class HostSlot:
    """A slot without a GPU."""

    def __init__(self, buffers):
        self.host = {name: torch.empty_like(buffer) for name, buffer in buffers.items()}
        self.arrived = SimpleNamespace(synchronize=lambda: None)

    def send(self, sampler):
        pass

    def deliver(self, buffers):
        for name, host in self.host.items():
            buffers[name].copy_(host)


def with_a_thread(place):
    """A loader that prepares ahead in a thread."""
    loader = Loader(Sampler(noise(), 4, seed=0), 1, torch.device(place))
    if place == "cpu":
        loader._slots, loader._thread = [HostSlot(loader.buffers), HostSlot(loader.buffers)], ThreadPoolExecutor(1)
    return loader


@pytest.mark.parametrize("place", PLACES)
def test_what_fails_in_the_thread_is_raised_once_for_each_load_and_forgotten(place, monkeypatch):
    loader, plain = with_a_thread(place), Sampler(noise(), 4, seed=0)
    plain.dataset = loader.sampler.dataset
    loader.load()
    assert equal(loader.batch(0), plain.next())
    loader._ahead[1].result()  # what comes next is there already
    draw = loader.sampler.draw
    monkeypatch.setattr(loader.sampler, "draw", lambda *_: 1 / 0)
    loader.load()
    assert equal(loader.batch(0), plain.next())
    errors = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            loader.load()
        errors.append(caught.value)
        assert loader.position == 8
    assert len(set(map(id, errors))) == 3  # each load tried again
    monkeypatch.setattr(loader.sampler, "draw", draw)
    loader.load()
    assert equal(loader.batch(0), plain.next()) and loader.position == 12
    loader.load()
    monkeypatch.setattr(loader.sampler, "draw", lambda *_: 1 / 0)
    loader.position = plain.position = 4
    loader._prepare(30)  # fails, and nobody asks for it
    assert isinstance(loader._ahead[1].exception(), ZeroDivisionError)
    monkeypatch.setattr(loader.sampler, "draw", draw)
    loader.load()
    assert equal(loader.batch(0), plain.next())
