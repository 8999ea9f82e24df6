"""The generative adversarial metric: two GANs, each of whose discriminators judges the other's samples."""

from dataclasses import dataclass

from ganfast.errors import InputError

NEAR_ONE = 1.3  # the paper gives no bound for r_test ≃ 1: this factor either way


@dataclass(frozen=True)
class BattleReport:
    """Errors are shares in [0, 1]: of real samples taken for fake, of the other generator's samples taken for real."""

    other: str
    error_test: float
    other_error_test: float
    error_sample: float
    other_error_sample: float
    r_test: float | None  # None where the other's error is 0
    r_sample: float | None
    winner: str  # "this", "other" or "tie"

    def __str__(self):
        said = {"this": "this run wins", "other": f"{self.other} wins", "tie": "tie: r_test is too far from 1"}
        if self.winner == "tie" and self.comparable:
            said["tie"] = "tie"
        return "\n".join(
            [
                f"battle with {self.other}",
                "error of the discriminator         this    other",
                f"on real samples                  {self.error_test:>6.1%}   {self.other_error_test:>6.1%}",
                f"on the other generator's samples {self.error_sample:>6.1%}   {self.other_error_sample:>6.1%}",
                f"r_test {number(self.r_test)}, r_sample {number(self.r_sample)}: {said[self.winner]}",
            ]
        )

    @property
    def comparable(self) -> bool:
        return near_one(self.r_test)


def battle_report(
    other: str, error_test: float, other_error_test: float, error_sample: float, other_error_sample: float
) -> BattleReport:
    """r_test = ε(D(x)) / ε(D'(x)), r_sample = ε(D(G'(z))) / ε(D'(G(z))); D', G' are the ``other`` run's.

    ε is the share that a discriminator gets wrong. With r_test ≃ 1 (here within a factor of ``NEAR_ONE``) the
    discriminators generalise alike, and this run wins where r_sample < 1, the other where r_sample > 1; all else is a
    tie (Im et al. 2016, arXiv:1602.05110, section 4). ``InputError`` where an error is not in [0, 1].
    """
    errors = (error_test, other_error_test, error_sample, other_error_sample)
    if not all(0 <= error <= 1 for error in errors):
        raise InputError(f"errors of a battle are shares in [0, 1], got {', '.join(map(str, errors))}.")
    r_test, r_sample = ratio(error_test, other_error_test), ratio(error_sample, other_error_sample)
    winner = "tie"
    if near_one(r_test) and error_sample != other_error_sample:
        winner = "this" if error_sample < other_error_sample else "other"
    return BattleReport(other, *errors, r_test, r_sample, winner)


def ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def near_one(r_test: float | None) -> bool:
    return r_test is not None and 1 / NEAR_ONE <= r_test <= NEAR_ONE


def number(r: float | None) -> str:
    return "undefined" if r is None else f"{r:.3f}"
