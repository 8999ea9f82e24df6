"""What a group of rows says: ganfast beside the fastest alternative of it, and in which words."""

import statistics

import table

OURS = ("ganfast", "ganfast compiled", "unfused", "bare", "data")  # rows that are ganfast's own, or a part of it
PLAIN = ("eager", "examples", "authors", "torch", "broadcast")  # PyTorch as people write it
EQUAL = 0.03  # a ratio this near to 1 is none
TITLES = {  # the beginning of a group → what a stranger calls it
    "dcgan": "DCGAN-64 step",
    "dcgan_training": "DCGAN-64 step with data, averages and norms",
    "translation cyclegan": "CycleGAN step at 128 pixels, with data, averages and norms",
    "translation pix2pix": "pix2pix step at 128 pixels, with data and norms",
    "resnet_generator": "step of CycleGAN's generator at 128 pixels",
    "critic wgan-gp conv": "WGAN-GP step, convolutional critic",
    "critic wgan-gp resnet": "WGAN-GP step, ResNet critic",
    "critic r1 conv": "R1 step, convolutional critic",
    "pairwise_l1": "minibatch discrimination",
    "pairwise_l1_large": "minibatch discrimination",
    "sigmoid_bce": "loss of D, sigmoid cross-entropy",
    "around_the_critic": "penalty without its critic",
    "gradient_penalty": "penalty of given gradients",
    "interpolate": "points between real and fake",
    "batch_norm_act": "BatchNorm + ReLU",
    "norm_act instance": "InstanceNorm + ReLU",
    "norm_act": "normalisation + ReLU",
    "layer": "layer of DCGAN",
}
STEPS = ("dcgan", "translation", "resnet_generator", "critic")  # groups that begin so are whole steps
ROWS = {
    "eager": "PyTorch as tutorials have it",
    "examples": "the loop of pytorch/examples",
    "authors": "the authors' training loop",
    "unfused": "ganfast with torch's layers",
    "tuned": "PyTorch, tuned",
    "compiled": "torch.compile",
    "traced": "torch.compile of double backward",
    "max-autotune": "torch.compile, max-autotune",
    "torch": "plain PyTorch",
    "lerp": "torch.lerp",
    "cdist": "torch.cdist",
    "broadcast": "plain PyTorch",
    "compiled broadcast": "torch.compile",
    "ganfast compiled": "ganfast under torch.compile",
}


def good(rows: dict) -> dict:
    """The rows that were measured."""
    return {name: row for name, row in rows.items() if "seconds" in row}


def is_step(row: dict) -> bool:
    return row["group"].startswith(STEPS)


def title(group: str) -> tuple[str, str]:
    """(what a group is, its case): "critic r1 conv width 16 …" → ("R1 step, …", "width 16 …")."""
    whole = group.rpartition(" on ")[0] or group
    for begin in sorted(TITLES, key=len, reverse=True):
        if whole == begin or whole.startswith(begin + " "):
            return TITLES[begin], whole[len(begin) :].strip()
    return whole, ""


def called(row: dict) -> str:
    return ROWS.get(row["row"], row["row"])


def ours(members: list[dict]) -> dict | None:
    return next((row for row in members if row["row"] == "ganfast"), None)


def alternatives(members: list[dict]) -> list[dict]:
    """The rows of a group that a user would have instead of ganfast, the fastest first."""
    return sorted((row for row in members if row["row"] not in OURS), key=lambda row: row["ratio"])


def verdict(row: dict) -> str:
    """Whether ganfast is faster than this row, slower, or neither: within 3 %, or quartiles on both sides of 1."""
    low, high = row["ratio_quartiles"]
    if low > 1 and row["ratio"] > 1 + EQUAL:
        return "faster"
    return "slower" if high < 1 and row["ratio"] < 1 - EQUAL else "equal"


def fastest(rows: dict) -> list[dict]:
    """Of each group that has one, the fastest alternative."""
    return [found[0] for members in table.groups(good(rows)).values() if (found := alternatives(members))]


def noise(rows: dict) -> float:
    """How far the quartiles of ganfast's rows, timed against themselves, lie apart: the median."""
    own = [row["ratio_quartiles"] for row in good(rows).values() if row["row"] == "ganfast"]
    return statistics.median(high - low for low, high in own) if own else float("nan")


def again(first: dict, second: dict) -> tuple[int, float, float, str, int]:
    """A rerun: rows in both, the median and the largest change of their ratios, that row, rows outside the spread.

    The spread is what both report: a row is outside where the quartiles of the two do not meet.
    """
    both = {name: (row, second[name]) for name, row in good(first).items() if name in good(second)}
    both = {name: pair for name, pair in both.items() if pair[0]["row"] not in OURS}
    if not both:
        return 0, 0.0, 0.0, "", 0
    moved = {name: abs(b["ratio"] / a["ratio"] - 1) for name, (a, b) in both.items()}
    apart = sum(
        a["ratio_quartiles"][0] > b["ratio_quartiles"][1] or b["ratio_quartiles"][0] > a["ratio_quartiles"][1]
        for a, b in both.values()
    )
    worst = max(moved, key=moved.get)
    return len(both), statistics.median(moved.values()), moved[worst], worst, apart
