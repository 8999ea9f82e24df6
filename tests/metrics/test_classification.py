"""Errors and clusterings against hand-computed values, and which of them a recipe gets."""

import math
import sys

import pytest
import torch
from training.games import images

from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics.classification import classification_report, clustering_report
from ganfast.recipes import RECIPES, Trained
from ganfast.training import abilities

SMALL = {"width": 1, "latent_dim": 3}


def clustered(table: list[list[int]]):
    """The report of ``table``, rows a category and columns a class, of numbers of samples."""
    counts = torch.tensor(table)
    categories, classes = counts.shape
    pairs = torch.arange(counts.numel()).repeat_interleave(counts.flatten())
    return clustering_report(pairs // classes, pairs % classes, categories, classes)


def test_errors_by_hand():
    report = classification_report(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2]))
    assert (report.rows, report.error) == (4, 0.25) and "25.00%" in str(report)


def test_categories_by_other_names_are_right():
    report = clustered([[0, 5, 0], [0, 0, 2], [3, 0, 0]])
    assert report.majority == report.matched == pytest.approx(1) and report.mutual_information == pytest.approx(1)


def test_two_categories_of_one_class():
    """Both are of class 0 by majority, 7 of 10 right; one to one the second is better off with class 1, 6 of 10."""
    report = clustered([[4, 1], [3, 2]])
    assert report.majority == pytest.approx(0.7) and report.matched == pytest.approx(0.6)
    classes = -0.7 * math.log(0.7) - 0.3 * math.log(0.3)
    joint = -sum(p * math.log(p) for p in (0.4, 0.1, 0.3, 0.2))
    mutual = classes + math.log(2) - joint
    assert report.mutual_information == pytest.approx(mutual / ((classes + math.log(2)) / 2))


def test_more_categories_than_classes_and_empty_ones():
    report = clustered([[4, 0], [0, 0], [0, 3], [0, 1]])
    assert (report.used, report.categories, report.classes, report.rows) == (3, 4, 2, 8)
    assert report.majority == 1 and report.matched == pytest.approx(7 / 8) and "3 of 4" in str(report)
    assert clustered([[3, 3], [2, 2]]).mutual_information == pytest.approx(0, abs=1e-12)
    assert clustered([[3, 1], [0, 0]]).mutual_information == pytest.approx(0, abs=1e-12)  # one category has all


def test_scipy_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(InputError, match=r"needs scipy: run pip install 'ganfast\[demo\]'"):
        clustered([[1, 0], [0, 1]])


def trained(name: str, **options) -> Trained:
    recipe, data = RECIPES[name](**SMALL, **options), images()
    specs = {each: data.spec(data.column_of(column)) for each, column in recipe.columns.items()}
    return Trained(recipe, specs, recipe.build(specs)).eval()


@pytest.mark.parametrize(
    "name, options, metric",
    [
        ("sgan", {}, "classification"),
        ("catgan", {"semi_supervised": True}, "classification"),
        ("catgan", {"categories": 7}, "clustering"),
    ],
)
def test_a_recipe_that_saw_labels_has_errors_and_any_other_a_clustering(name, options, metric):
    model, data = trained(name, **options), images(300)
    (found,) = abilities.reports(model, data, progress=False).items()
    assert found[0] == metric and found[1].rows == 300  # two parts
    x = data.samples.permute(0, 3, 1, 2) / 127.5 - 1
    predicted = model.classify(x).argmax(1)
    if metric == "classification":
        assert found[1] == classification_report(predicted, data.labels)
    else:
        assert found[1] == clustering_report(predicted, data.labels, 7, 5)
    assert abilities.reports(model, Dataset("bare", images=data.samples), progress=False) == {}


def test_data_of_other_classes_are_refused():
    with pytest.raises(InputError, match=r"trained on 5 classes, and noise has 3: give the data.*\(--data\)"):
        abilities.reports(trained("sgan"), images(3), progress=False)
