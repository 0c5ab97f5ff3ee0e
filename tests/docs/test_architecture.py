from architecture import LAYERS, imports


def test_imports_point_downward_only():
    layers, found = {name: i for i, name in enumerate(LAYERS)}, imports()
    assert set(layers) == set(found)
    assert {(a, b) for a, others in found.items() for b in others if layers[b] < layers[a]} == set()


def test_an_upward_import_is_seen(tmp_path):
    package = tmp_path / "resnet_lesion"
    for folder in ("blocks", "cli"):
        (package / folder).mkdir(parents=True)
    (package / "blocks" / "branch.py").write_text("def f():\n    from resnet_lesion.cli.command import main\n")
    (package / "cli" / "command.py").write_text("from resnet_lesion import errors\n")
    assert imports(package) == {"blocks": {"cli"}, "cli": {"errors"}}
