import copy

import torch
from torch import nn

from ganfast.training.ema import Average


def test_follows_the_recurrence_for_weights_and_statistics():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = copy.deepcopy(model)
    ema = Average(average, model, decay=0.9)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(1, 40):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(5, 3))
        ema.update(torch.tensor(float(step)))
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = (
                expected[name] * decay + value.double() * (1 - decay) if value.is_floating_point() else value
            )
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-5, atol=1e-5)
    assert average[1].num_batches_tracked == 39
