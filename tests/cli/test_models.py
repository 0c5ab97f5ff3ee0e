from helpers.command import run


def test_models(capsys):
    assert run("models", "densenet121") == 0
    assert capsys.readouterr().out.startswith("densenet121: not covered: expected residual blocks, which are added")
    assert run("models", "cs*resnet50") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cspresnet50: 13 blocks (BottleneckBlock); no path gradients: expected blocks in a row")
    assert lines[-1] == "1 of 1 covered."
    assert run("models", "resnet51") == 2
    assert "got 'resnet51'. Did you mean 'resnet51q'" in capsys.readouterr().err
