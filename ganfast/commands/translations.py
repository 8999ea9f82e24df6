"""What ``ganfast evaluate`` says of recipes that are given pictures or maps: beside true answers, and others."""

from ganfast import metrics
from ganfast.commands import network
from ganfast.data import Dataset, match
from ganfast.data.sampler import drawn
from ganfast.errors import InputError
from ganfast.metrics import features
from ganfast.metrics.attributes import attribute_report, partners
from ganfast.metrics.fidelity import fidelity_report
from ganfast.metrics.segmentation import colours, painted, segmentation_report
from ganfast.recipes import Trained
from ganfast.training import answers, pictures, run_directory, scoring
from ganfast.training.showing import Show


def compare(job, trained: Trained) -> None:
    """Print and keep the scores that the recipe allows; ``job`` is an Evaluate."""
    recipe, kinds = trained.recipe, network.conditions(trained)
    for name in ("neighbours", "battle", "parzen"):
        if getattr(job, name):
            raise InputError(f"--{name}: recipe {recipe.name} is given images: leave it out.")
    if recipe.answer:
        compare_answers(job, trained)
        return
    if job.features or job.paired:
        option = "--features" if job.features else "--paired"
        raise InputError(f"{option}: recipe {recipe.name} has no true answers to compare with: leave it out.")
    if trained.can("distances"):
        job.keep("distances", answers.distances(trained, sources_of(job, trained)[0]), trained, 1)
    elif "attributes" in kinds:
        compare_attributes(job, trained)
    else:
        raise InputError(
            f"evaluate compares samples drawn from latents, and recipe {recipe.name} is given images: look at what "
            "`ganfast generate --input` makes of some."
        )


def compare_answers(job, trained: Trained) -> None:
    """How near answers come to the true ones, and as a set to all of these over features (--features)."""
    sources, known = sources_of(job, trained)
    seen = features.published(job.features, trained.device) if job.features else None
    count = min(job.samples or scoring.SAMPLES, *map(len, sources))
    if not known and seen is None:
        raise InputError(
            f"recipe {trained.recipe.name} translates unpaired images: say that files of one name are partners "
            "(--paired), or give a feature network to compare the sets by (--features)."
        )
    own, others = sources, {}
    if (maps := sources[0].columns.get("maps")) is not None:
        own = sources_of(job.as_trained(), trained)[0] if run_directory.of(job.network) else sources
        others = {"class colours": painted(maps[:count].squeeze(3).long(), colours(own[0]))}
    made, true, trivial = answers.answers(trained, sources, count, True)
    trivial |= others
    if known:
        job.keep("fidelity", fidelity_report(made, true, trivial, answers.measures_of(seen)), trained, count)
    if run := run_directory.of(job.network):
        size = trained.specs[trained.recipe.answer].shape[1:]
        shown = [source.cropped(*map(min, size, source.shape[1:])) for source in sources]  # no larger than in training
        pictures.write_png(run / "answers.png", Show(trained, shown, 0, {}, known).picture())
    if others:
        job.keep("segmentation", segmentation_report(made, sources[0], own[0], progress=True), trained, count)
    if seen is not None:
        column = trained.recipe.columns[trained.recipe.answer]
        source = sources[column.source]
        real = Dataset(source.name, images=source.columns[source.column_of(column)])
        job.keep(seen.name, metrics.score_report(real, made, seen, True, trivial), trained, count)


def compare_attributes(job, trained: Trained) -> None:
    """Whether translations have the attributes of other rows, and of rows of one identity how near they come."""
    kinds = network.conditions(trained)
    shape = trained.specs[kinds["images"]].shape
    data = job.open(shape)
    match(trained.recipe.name, trained.recipe.columns, [data])
    metrics.check_shape(data, shape)
    if data.spec("attributes") != trained.specs[kinds["attributes"]]:
        raise InputError(f"{data.name} has other attributes than the recipe was trained on: give --attributes.")
    known = job.as_trained().open(shape) if run_directory.of(job.network) else data
    order = drawn(data)[: job.samples or scoring.SAMPLES]
    found = answers.with_attributes_of(trained, data, order, order.roll(1), True)
    attributes = data.columns["attributes"]
    report = attribute_report(known, *found, attributes[order], attributes[order.roll(1)], progress=True)
    job.keep("attributes", report, trained, len(order))
    if "identities" in data.columns:
        others = partners(data.columns["identities"])
        rows = (attributes != attributes[others]).any(1).nonzero().flatten()[: job.samples or scoring.SAMPLES]
        images, made, true = answers.with_attributes_of(trained, data, rows, others[rows], True)
        job.keep("fidelity", fidelity_report(made, true, {"input": images}), trained, len(rows))


def sources_of(job, trained: Trained) -> tuple[list[Dataset], bool]:
    """The data set for each source of the recipe's columns, and whether rows of one number belong together."""
    recipe = trained.recipe
    two = any(column.source for column in recipe.columns.values())
    partners = job.paired or any(column.column in ("targets", "maps") for column in recipe.columns.values())
    if job.paired and not two:
        raise InputError(f"--paired: recipe {recipe.name} learns from pairs or from one set: leave it out.")
    if (two or job.paired) and job.data_b is None:
        raise InputError(f"recipe {recipe.name} needs two sets: name the second one, too (--data-b).")
    shape = trained.specs[recipe.answer or next(iter(recipe.columns))].shape
    first = job.open(shape, job.data_b if partners else None)
    if job.paired:
        parts = {"images": first.columns["images"], "targets": first.columns["targets"]}
        sources = [Dataset(first.name, images=images) for images in parts.values()]
    else:
        sources = [first, job.open(shape, source=job.data_b)] if two else [first]
    for name, spec in match(recipe.name, recipe.columns, sources).items():
        if spec.kind == "maps" and spec.classes > (own := trained.specs[name].classes):
            raise InputError(
                f"{job.data_b} has {spec.classes} classes, and the recipe was trained on {own}: give other maps "
                "(--data-b)."
            )
    for source in sources:
        metrics.check_shape(source, (*shape[:1], *source.shape[1:]) if recipe.sides else shape)
    return sources, job.paired or not two
