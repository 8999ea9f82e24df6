from pathlib import Path

from ganfast.cli import main


def test_a_run_becomes_onnx_and_is_compared(trained, capsys):
    assert main(["export", "--network", str(trained), "--onnx", "g.onnx"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "wrote g.onnx: z [batch, 4] → samples, opset 18"
    assert "onnxruntime" in second and "differ by" in second and "at most 1e-04" in second
    assert [path.name for path in Path().iterdir()] == ["g.onnx"]


def test_without_onnxruntime_it_says_so(trained, capsys, monkeypatch):
    monkeypatch.setattr("ganfast.models.onnx.check", lambda *_: None)
    assert main(["export", "--network", str(trained), "--onnx", "g.onnx"]) == 0
    assert "not compared" in (out := capsys.readouterr().out) and "pip install 'ganfast[onnx]'" in out


def test_mistakes(trained, fails):
    assert "nowhere" in fails("export", "--network", "nowhere", "--onnx", "g.onnx")
    assert "not/there" in fails("export", "--network", trained, "--onnx", "not/there/g.onnx")
    assert list(Path().iterdir()) == []
