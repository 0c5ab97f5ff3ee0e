from architecture import imports, layer_of


def test_imports_point_downward_only():
    layers, found = layer_of(), imports()
    assert set(layers) == set(found)
    upward = {(file, other) for file, others in found.items() for other in others if layers[other] < layers[file]}
    assert upward == set()


def test_an_upward_import_is_seen(tmp_path):
    package = tmp_path / "resnet_lesion"
    package.mkdir()
    (package / "branch.py").write_text("def f():\n    from resnet_lesion.cli import main\n")
    (package / "cli.py").write_text("from resnet_lesion import storage\n")
    assert imports(package) == {"branch": {"cli"}, "cli": {"storage"}}
