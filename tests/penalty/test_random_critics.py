"""Random critics against plain double backward; random_critics.py takes any number of them."""

import pytest
from penalty import random_critics

FEW, MANY = 120, 300


@pytest.fixture(scope="module", autouse=True)
def fewer_objects(no_garbage_in_what_stays):
    random_critics.warm_up()


@pytest.mark.parametrize("seed", [*range(FEW), *(pytest.param(s, marks=pytest.mark.slow) for s in range(FEW, MANY))])
def test_a_random_critic(seed):
    attempt = random_critics.find(seed)
    wrong = random_critics.judge(seed, attempt)
    assert not wrong, (
        f"random_critics.build({seed}, {attempt}): {random_critics.build(seed, attempt)[3]}\n" + "\n".join(wrong)
    )
