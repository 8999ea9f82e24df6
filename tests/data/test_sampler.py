"""Endless batches: permutations, epoch ends, resuming, flips, ranges, strides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganfast.data import Dataset, Sampler
from ganfast.errors import InputError


def numbered(count):
    """Points whose value is their index."""
    return Dataset("numbers", points=torch.arange(count, dtype=torch.float32).unsqueeze(1))


def noise(count=64, size=16, channels=3):
    return Dataset("noise", images=torch.randint(256, (count, size, size, channels), dtype=torch.uint8))


def only(batch):
    """The one column of a batch."""
    (column,) = batch.values()
    return column


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_epoch_is_a_permutation_whatever_the_batch(data):
    count = data.draw(st.integers(1, 50))
    batch = data.draw(st.integers(1, count))
    sampler = Sampler(numbered(count), batch, seed=data.draw(st.integers(-(2**63), 2**64 - 1)))
    drawn = torch.cat([only(sampler.next()) for _ in range(-(-3 * count // batch))]).flatten().tolist()
    assert sampler.position == len(drawn)
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_seed_and_position_alone_make_a_batch(data):
    count = data.draw(st.integers(1, 40))
    batch, seed = data.draw(st.integers(1, count)), data.draw(st.integers(0, 2**32))
    images = Dataset("noise", images=torch.arange(count * 32, dtype=torch.int32).to(torch.uint8).view(count, 4, 4, 2))
    one, other = (Sampler(images, batch, seed, flip=True) for _ in range(2))
    for _ in range(data.draw(st.integers(0, 12))):
        one.next()
    other.position = one.position
    assert torch.equal(only(one.next()), only(other.next()))
    other.position = start = data.draw(st.integers(0, 10**9))
    width = data.draw(st.integers(1, batch))
    narrow = Sampler(images, width, seed, flip=True)
    narrow.position = start
    assert torch.equal(only(narrow.next()), only(other.next())[:width])


def test_orders_differ_between_epochs_and_seeds():
    sampler = Sampler(numbered(100), 100, seed=0)
    first, second = only(sampler.next()), only(sampler.next())
    assert not torch.equal(first, second)
    assert not torch.equal(first, only(Sampler(numbered(100), 100, seed=1).next()))
    assert not torch.equal(second, only(Sampler(numbered(100), 100, seed=1).next()))


def test_flips_mirror_whole_images_about_half_the_time():
    data = noise(2000, 16, 1)
    plain, flipped = only(Sampler(data, 2000, seed=3).next()), only(Sampler(data, 2000, seed=3, flip=True).next())
    same = (plain == flipped).flatten(1).all(1)
    mirrored = (plain.flip(3) == flipped).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 0.45 < mirrored.float().mean() < 0.55


def test_flips_change_from_epoch_to_epoch():
    data = Dataset("one", images=torch.randint(256, (1, 16, 16, 1), dtype=torch.uint8))
    sampler = Sampler(data, 1, seed=0, flip=True)
    assert len({tuple(only(sampler.next()).flatten().tolist()) for _ in range(20)}) == 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_floats_in_channels_last(channels):
    data = noise(20, 16, channels)
    for flip in (False, True):
        batch = only(Sampler(data, 7, seed=0, flip=flip).next())
        assert batch.shape == (7, channels, 16, 16) and batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert batch.permute(0, 2, 3, 1).is_contiguous()


def test_values_are_the_bytes_from_minus_one_to_one():
    data = Dataset("ramp", images=torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1))
    batch = only(Sampler(data, 1, seed=0).next()).flatten()
    assert batch[0] == -1 and batch[255] == 1
    torch.testing.assert_close(batch, torch.arange(256) / 127.5 - 1, rtol=0, atol=2**-23)
    assert torch.equal(((batch + 1) * 127.5).round(), torch.arange(256.0))


def test_points_come_unchanged():
    points = torch.randn(10, 2)
    batch = only(Sampler(Dataset("points", points=points), 10, seed=0).next())
    assert torch.equal(batch.sort(0).values, points.sort(0).values)


@pytest.mark.parametrize("batch", [0, -1, 11])
def test_batch_out_of_range(batch):
    with pytest.raises(InputError, match=f"--batch {batch}: numbers has 10 samples"):
        Sampler(numbered(10), batch, seed=0)


def test_points_cannot_be_flipped():
    with pytest.raises(InputError, match="numbers holds points"):
        Sampler(numbered(10), 2, seed=0, flip=True)


def test_the_data_set_is_not_changed():
    data = noise(8)
    before = data.samples.clone()
    only(Sampler(data, 8, seed=0, flip=True).next()).zero_()
    points = numbered(4)
    only(Sampler(points, 4, seed=0).next()).zero_()
    assert torch.equal(data.samples, before) and points.samples.sum() == 6


def test_all_columns_of_a_row_stay_together():
    count = torch.arange(40)
    data = Dataset(
        "all",
        images=count.to(torch.uint8).view(-1, 1, 1, 1).expand(40, 4, 4, 1).contiguous(),
        labels=count.clone(),
        attributes=count.float()[:, None] * torch.tensor([1.0, -1.0]),
        tokens=count[:, None].repeat(1, 3),
        audio=count.to(torch.int16)[:, None].repeat(1, 5),
        clips=count.to(torch.uint8).view(-1, 1, 1, 1, 1).expand(40, 2, 4, 6, 3).contiguous(),
    )
    batch = Sampler(data, 16, seed=2, flip=True).next()
    row = batch["labels"]
    assert row.shape == (16,) and row.dtype == torch.int64 and batch["tokens"].dtype == torch.int64
    assert torch.equal(((batch["images"] + 1) * 127.5).round(), row.float().view(-1, 1, 1, 1).expand(16, 1, 4, 4))
    assert torch.equal(batch["attributes"], torch.stack([row, -row], 1).float())
    assert torch.equal(batch["tokens"], row[:, None].repeat(1, 3))
    assert torch.equal(batch["audio"], row.float().view(-1, 1, 1).expand(16, 1, 5) / 32768)
    assert batch["clips"].shape == (16, 3, 2, 4, 6) and batch["clips"].dtype == torch.float32
    assert torch.equal(((batch["clips"] + 1) * 127.5).round()[:, 0, 0, 0, 0], row.float())


def test_images_and_targets_are_mirrored_alike():
    images = torch.randint(256, (200, 8, 8, 3), dtype=torch.uint8)
    targets = torch.randint(256, (200, 8, 8, 1), dtype=torch.uint8)
    targets[..., 0] = images[..., 1]
    batch = Sampler(Dataset("pairs", images=images, targets=targets), 200, seed=0, flip=True).next()
    plain = Sampler(Dataset("pairs", images=images, targets=targets), 200, seed=0).next()
    assert torch.equal(batch["images"][:, 1:2], batch["targets"])
    assert not torch.equal(batch["images"], plain["images"])


def test_a_whole_clip_is_mirrored():
    data = Dataset("clips", clips=torch.randint(256, (50, 3, 4, 6, 2), dtype=torch.uint8))
    plain, flipped = Sampler(data, 50, seed=1).next()["clips"], Sampler(data, 50, seed=1, flip=True).next()["clips"]
    same, mirrored = ((flipped == other).flatten(1).all(1) for other in (plain, plain.flip(4)))
    assert (same ^ mirrored).all() and same.any() and mirrored.any()


def test_floats_of_audio_come_unchanged():
    audio = torch.rand(10, 7) * 2 - 1
    batch = Sampler(Dataset("audio", audio=audio), 10, seed=0).next()["audio"]
    assert batch.shape == (10, 1, 7) and torch.equal(batch.squeeze(1).sort(0).values, audio.sort(0).values)
