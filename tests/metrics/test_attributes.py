"""Scores of translations by attributes, against an oracle that sees them in the pixels."""

import pytest
import torch

from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics.attributes import attribute_report, classes, partners


def painted(attributes):
    """uint8 [N, 16, 16, 1]: the upper half says hair, of three values, the lower one beard."""
    images = torch.randint(0, 20, (len(attributes), 16, 16, 1), dtype=torch.uint8)
    images[:, :8] += (attributes[:, :3].argmax(1) * 100).byte()[:, None, None, None]
    images[:, 8:] += (attributes[:, 3] * 100).byte()[:, None, None, None]
    return images


def seen(images):
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def test_shares_by_field_of_what_was_to_change_and_what_was_to_stay():
    torch.manual_seed(0)
    hair, beard = torch.eye(3)[torch.randint(3, (300,))], torch.randint(2, (300, 1)).float()
    own, age = torch.cat([hair, beard], 1), torch.rand(300, 1)
    names = {"attributes": ("hair=a", "hair=b", "hair=c", "beard", "age")}
    known = Dataset("faces", images=painted(own), attributes=torch.cat([own, age], 1), names=names)
    wanted = own.roll(1, 0)
    images, real = seen(painted(own)), seen(painted(wanted))
    half = torch.cat([own[:, :3], wanted[:, 3:]], 1)  # as if the generator changed beards alone
    of = lambda values: torch.cat([values, age], 1)  # noqa: E731
    found = attribute_report(known, images, seen(painted(half)), real, of(own), of(wanted), steps=60)
    assert found.rows == 300 and set(found.changed) == {"hair", "beard"}  # age is no class
    assert found.changed["hair"] < 0.02 and found.changed["beard"] > 0.98
    assert max(found.input.values()) < 0.02 and min(found.real.values()) > 0.98 < found.kept["hair"]
    assert "beard" in str(found) and found.means["real"] == sum(found.real.values()) / 2
    with pytest.raises(InputError, match="no attributes of 0 and 1"):
        alone = Dataset("ages", images=painted(own), attributes=age, names={"attributes": ("age",)})
        attribute_report(alone, images, images, images, age, age)


def test_classes_of_a_field():
    rows = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 1]])
    assert classes(rows).tolist() == [0, 2, 3, 3] and classes(rows[:, 2:]).tolist() == [0, 0, 1, 1]


def test_partners_are_of_one_identity():
    assert partners(torch.tensor([0, 0, 1, 0, 2, 2])).tolist() == [3, 0, 2, 1, 5, 4]
