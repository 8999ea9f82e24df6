from pathlib import Path

import pytest
import torch
from commands import small

from ganfast import load
from ganfast.cli import main


def test_a_run_becomes_onnx_and_is_compared(trained, capsys):
    assert main(["export", "--network", str(trained), "--onnx", "g.onnx"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "wrote g.onnx: z [batch, 4] → samples, opset 18"
    assert "onnxruntime" in second and "differ by" in second and "at most 1e-04" in second
    assert [path.name for path in Path().iterdir()] == ["g.onnx"]


@pytest.mark.parametrize(
    "make, inputs",
    [
        (small.cgan, "z [batch, 4], y int64 [batch]"),
        (small.infogan, "z [batch, 4], c int64 [batch], u [batch, 2]"),
        (small.cyclegan, "a [batch, 1, height, width]"),
    ],
)
def test_the_message_lists_the_inputs(make, inputs, capsys):
    assert main(["export", "--network", make(), "--onnx", "g.onnx"]) == 0
    assert f"wrote g.onnx: {inputs} → samples, opset 18" in capsys.readouterr().out


def test_a_direction_is_chosen(capsys):
    import onnxruntime

    file = small.cyclegan()
    assert main(["export", "--network", file, "--onnx", "g.onnx", "--direction", "ba"]) == 0
    assert "b [batch, 1, height, width] → samples" in capsys.readouterr().out
    session = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        wanted = load(file).networks["G_ba"](images)
    (got,) = session.run(None, {"b": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=1e-4, atol=1e-4)


def test_without_onnxruntime_it_says_so(trained, capsys, monkeypatch):
    monkeypatch.setattr("ganfast.models.onnx.check", lambda *_: None)
    assert main(["export", "--network", str(trained), "--onnx", "g.onnx"]) == 0
    assert "not compared" in (out := capsys.readouterr().out) and "pip install 'ganfast[onnx]'" in out


def test_mistakes(trained, fails):
    assert "nowhere" in fails("export", "--network", "nowhere", "--onnx", "g.onnx")
    assert "not/there" in fails("export", "--network", trained, "--onnx", "not/there/g.onnx")
    assert "--direction ab" in fails("export", "--network", trained, "--onnx", "g.onnx", "--direction", "ab")
    assert list(Path().iterdir()) == []
