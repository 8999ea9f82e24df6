"""Endless batches: permutations, epoch ends, resuming, flips, ranges, strides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganfast.data import Dataset, Stream
from ganfast.errors import InputError


def numbered(count):
    """Points whose value is their index."""
    return Dataset("numbers", torch.arange(count, dtype=torch.float32).unsqueeze(1))


def noise(count=64, size=16, channels=3):
    return Dataset("noise", torch.randint(256, (count, size, size, channels), dtype=torch.uint8))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_epoch_is_a_permutation_whatever_the_batch(data):
    count = data.draw(st.integers(1, 50))
    batch = data.draw(st.integers(1, count))
    stream = Stream(numbered(count), batch, seed=data.draw(st.integers(-(2**63), 2**64 - 1)))
    drawn = torch.cat([stream.next() for _ in range(-(-3 * count // batch))]).flatten().tolist()
    assert stream.position == len(drawn)
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_seed_and_position_alone_make_a_batch(data):
    count = data.draw(st.integers(1, 40))
    batch, seed = data.draw(st.integers(1, count)), data.draw(st.integers(0, 2**32))
    images = Dataset("noise", torch.arange(count * 32, dtype=torch.int32).to(torch.uint8).view(count, 4, 4, 2))
    one, other = (Stream(images, batch, seed, flip=True) for _ in range(2))
    for _ in range(data.draw(st.integers(0, 12))):
        one.next()
    other.position = one.position
    assert torch.equal(one.next(), other.next())
    other.position = start = data.draw(st.integers(0, 10**9))
    width = data.draw(st.integers(1, batch))
    narrow = Stream(images, width, seed, flip=True)
    narrow.position = start
    assert torch.equal(narrow.next(), other.next()[:width])


def test_orders_differ_between_epochs_and_seeds():
    stream = Stream(numbered(100), 100, seed=0)
    first, second = stream.next(), stream.next()
    assert not torch.equal(first, second)
    assert not torch.equal(first, Stream(numbered(100), 100, seed=1).next())
    assert not torch.equal(second, Stream(numbered(100), 100, seed=1).next())


def test_flips_mirror_whole_images_about_half_the_time():
    data = noise(2000, 16, 1)
    plain, flipped = Stream(data, 2000, seed=3).next(), Stream(data, 2000, seed=3, flip=True).next()
    same = (plain == flipped).flatten(1).all(1)
    mirrored = (plain.flip(3) == flipped).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 0.45 < mirrored.float().mean() < 0.55


def test_flips_change_from_epoch_to_epoch():
    data = Dataset("one", torch.randint(256, (1, 16, 16, 1), dtype=torch.uint8))
    stream = Stream(data, 1, seed=0, flip=True)
    assert len({tuple(stream.next().flatten().tolist()) for _ in range(20)}) == 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_floats_in_channels_last(channels):
    data = noise(20, 16, channels)
    for flip in (False, True):
        batch = Stream(data, 7, seed=0, flip=flip).next()
        assert batch.shape == (7, channels, 16, 16) and batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert batch.permute(0, 2, 3, 1).is_contiguous()


def test_values_are_the_bytes_from_minus_one_to_one():
    data = Dataset("ramp", torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1))
    batch = Stream(data, 1, seed=0).next().flatten()
    assert batch[0] == -1 and batch[255] == 1
    torch.testing.assert_close(batch, torch.arange(256) / 127.5 - 1, rtol=0, atol=2**-23)
    assert torch.equal(((batch + 1) * 127.5).round(), torch.arange(256.0))


def test_points_come_unchanged():
    points = torch.randn(10, 2)
    batch = Stream(Dataset("points", points), 10, seed=0).next()
    assert torch.equal(batch.sort(0).values, points.sort(0).values)


@pytest.mark.parametrize("batch", [0, -1, 11])
def test_batch_out_of_range(batch):
    with pytest.raises(InputError, match=f"--batch {batch}: numbers has 10 samples"):
        Stream(numbered(10), batch, seed=0)


def test_points_cannot_be_flipped():
    with pytest.raises(InputError, match="numbers holds points"):
        Stream(numbered(10), 2, seed=0, flip=True)


def test_the_data_set_is_not_changed():
    data = noise(8)
    before = data.samples.clone()
    Stream(data, 8, seed=0, flip=True).next().zero_()
    points = numbered(4)
    Stream(points, 4, seed=0).next().zero_()
    assert torch.equal(data.samples, before) and points.samples.sum() == 6
