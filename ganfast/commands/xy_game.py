"""The game min_x max_y x·y, the smallest one on which gradient descent-ascent fails: four ways to play it.

Its only equilibrium is (0, 0), its gradient field (−y, x) turns round it. With step size α, 0 < α < 1, and w = x + iy:

- simultaneous: x ← x − αy, y ← y + αx. |w| grows by √(1 + α²) a step.
- alternating: y sees the new x. x² + y² − αxy stays, and with it the orbit.
- averaging: the mean of the alternating iterates w_0 … w_{t−1} goes to 0 as 1/t.
- extragradient (Korpelevich 1976): each player moves by the gradient after a trial step. |w| shrinks by √(1 − α² + α⁴).

Gidel et al. 2019 (arXiv:1802.10551) on averaging and extragradient, Mescheder et al. 2018 (arXiv:1801.04406) on GANs.
"""

from dataclasses import dataclass

import numpy as np


def simultaneous(x: float, y: float, rate: float) -> tuple[float, float]:
    return x - rate * y, y + rate * x


def alternating(x: float, y: float, rate: float) -> tuple[float, float]:
    x = x - rate * y
    return x, y + rate * x


def extragradient(x: float, y: float, rate: float) -> tuple[float, float]:
    ahead_x, ahead_y = simultaneous(x, y, rate)
    return x - rate * ahead_y, y + rate * ahead_x


def play(update, rate: float, steps: int, start: tuple[float, float] = (1.0, 0.0)) -> np.ndarray:
    """Iterates [steps + 1, 2] of ``update``, the start among them."""
    path = [start]
    for _ in range(steps):
        path.append(update(*path[-1], rate))
    return np.array(path)


def averages(path: np.ndarray) -> np.ndarray:
    """[T, 2] → the mean of the first t rows for t = 1 … T."""
    return path.cumsum(0) / np.arange(1, len(path) + 1)[:, None]


@dataclass(frozen=True)
class Outcome:
    """One way to play: its path [steps + 1, 2], and how |w| changes, by theory and as measured.

    ``kind`` "factor": a step multiplies |w| by it, in the long run. "power": |w| goes as t to that power.
    """

    name: str
    path: np.ndarray
    kind: str
    theory: float

    @property
    def radius(self) -> np.ndarray:
        return np.hypot(*self.path.T)

    @property
    def measured(self) -> float:
        return growth(self.radius) if self.kind == "factor" else power(self.radius)


def growth(radius: np.ndarray) -> float:
    """The factor a step: slope of log radius [T] over the step, by least squares."""
    return float(np.exp(np.polyfit(np.arange(len(radius)), np.log(radius), 1)[0]))


def power(radius: np.ndarray) -> float:
    """p where radius [T] of the t-th mean goes as tᵖ on its crests: those of t·radius in the first and second half."""
    time = np.arange(1, len(radius) + 1)
    half = len(radius) // 2
    first, second = (time * radius)[:half].argmax(), half + (time * radius)[half:].argmax()
    return float(np.log(radius[second] / radius[first]) / np.log(time[second] / time[first]))


def all_ways(rate: float, steps: int) -> list[Outcome]:
    """The four ways from (1, 0)."""
    circling = play(alternating, rate, steps)
    return [
        Outcome("simultaneous", play(simultaneous, rate, steps), "factor", (1 + rate**2) ** 0.5),
        Outcome("alternating", circling, "factor", 1.0),
        Outcome("averaging", averages(circling), "power", -1.0),
        Outcome("extragradient", play(extragradient, rate, steps), "factor", (1 - rate**2 + rate**4) ** 0.5),
    ]
