"""Batches in static memory: those of the stream, whatever lies where."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from ganfast.data import Dataset, Feed, Stream

PLACES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def noise(count=50, size=16, channels=3):
    return Dataset("noise", torch.randint(256, (count, size, size, channels), dtype=torch.uint8))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("resident", [2**30, 0])
@pytest.mark.parametrize("place", PLACES)
def test_the_batches_of_the_stream_in_memory_that_stays(place, resident, flip):
    data = noise()
    plain, device = Stream(data, 16, seed=5, flip=flip), torch.device(place)
    feed = Feed(Stream(data, 16, seed=5, flip=flip), 3, device, resident)
    addresses = [buffer.data_ptr() for buffer in feed.buffers]
    for step in range(5):  # 15 batches of 16: epochs end within batches
        feed.load()
        assert feed.position == (step + 1) * 48
        for k in range(3):
            batch = feed.batch(k)
            assert batch.device.type == place and batch.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(batch.cpu(), plain.next())
    assert [buffer.data_ptr() for buffer in feed.buffers] == addresses
    plain.position = feed.position = 7
    feed.load()
    assert torch.equal(feed.batch(0).cpu(), plain.next())


@pytest.mark.parametrize("resident", [2**30, 0])
def test_the_shares_of_all_ranks_are_the_batch(resident):
    data = noise()
    whole = Feed(Stream(data, 12, seed=1, flip=True), 2, torch.device("cpu"))
    shares = [Feed(Stream(data, 12, 1, True), 2, torch.device("cpu"), resident, (rank, 3)) for rank in range(3)]
    for _ in range(3):
        whole.load()
        for share in shares:
            share.load()
        for k in range(2):
            assert torch.equal(torch.cat([share.batch(k) for share in shares]), whole.batch(k))


def test_points_come_unchanged():
    data = Dataset("points", torch.randn(10, 2))
    for resident in (2**30, 0):
        feed = Feed(Stream(data, 10, seed=0), 1, torch.device("cpu"), resident)
        feed.load()
        assert torch.equal(feed.batch(0).sort(0).values, data.samples.sort(0).values)


class HostSlot:
    """A slot without a GPU."""

    def __init__(self, buffers):
        self.host = [torch.empty_like(buffer) for buffer in buffers]
        self.arrived = SimpleNamespace(synchronize=lambda: None)

    def send(self, stream):
        pass

    def deliver(self, buffers):
        for buffer, host in zip(buffers, self.host):
            buffer.copy_(host)


def with_a_thread(place):
    """A feed that prepares ahead in a thread."""
    feed = Feed(Stream(noise(), 4, seed=0), 1, torch.device(place))
    if place == "cpu":
        feed._slots, feed._thread = [HostSlot(feed.buffers), HostSlot(feed.buffers)], ThreadPoolExecutor(1)
    return feed


@pytest.mark.parametrize("place", PLACES)
def test_what_fails_in_the_thread_is_raised_once_for_each_load_and_forgotten(place, monkeypatch):
    feed, plain = with_a_thread(place), Stream(noise(), 4, seed=0)
    plain.dataset = feed.stream.dataset
    feed.load()
    assert torch.equal(feed.batch(0).cpu(), plain.next())
    feed._ahead[1].result()  # what comes next is there already
    draw = feed.stream.draw
    monkeypatch.setattr(feed.stream, "draw", lambda *_: 1 / 0)
    feed.load()
    assert torch.equal(feed.batch(0).cpu(), plain.next())
    errors = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            feed.load()
        errors.append(caught.value)
        assert feed.position == 8
    assert len(set(map(id, errors))) == 3  # each load tried again
    monkeypatch.setattr(feed.stream, "draw", draw)
    feed.load()
    assert torch.equal(feed.batch(0).cpu(), plain.next()) and feed.position == 12
    feed.load()
    monkeypatch.setattr(feed.stream, "draw", lambda *_: 1 / 0)
    feed.position = plain.position = 4
    feed._prepare(30)  # fails, and nobody asks for it
    assert isinstance(feed._ahead[1].exception(), ZeroDivisionError)
    monkeypatch.setattr(feed.stream, "draw", draw)
    feed.load()
    assert torch.equal(feed.batch(0).cpu(), plain.next())
