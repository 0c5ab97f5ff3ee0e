"""The face of the package: its names come when they are asked for, and two libraries learn of it when they come."""

import ast
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import xarray as xr
from helpers import synthetic

import resnet_lesion as rl


def python(program):
    """Run a program in a process of its own, where nothing has been imported."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_nothing_is_imported_before_it_is_asked_for():
    imported = set(python("import resnet_lesion, sys; print(*sys.modules)"))
    slow = {"torch", "timm", "captum", "xarray", "numpy", "matplotlib", "scipy", "resnet_lesion_timm"}
    assert imported & slow == set()


def test_every_name_of_the_stub_is_there():
    stub = ast.parse(Path(rl.__file__).with_suffix(".pyi").read_text())
    names = {alias.name for line in stub.body if isinstance(line, ast.ImportFrom) for alias in line.names}
    assert names >= {"Deletion", "wrap", "testing", "digits", "plots", "open", "save"}
    assert set(rl.__all__) == names <= set(dir(rl))
    assert all(getattr(rl, name) is getattr(rl, name) for name in names)
    everything = {}
    exec("from resnet_lesion import *", everything)
    assert names <= everything.keys()
    assert rl.__version__ == version("resnet-lesion")


def test_other_names_are_not():
    with pytest.raises(AttributeError, match=r"^module 'resnet_lesion' has no attribute 'Deltion'$") as caught:
        _ = rl.Deltion
    assert (caught.value.name, caught.value.obj) == ("Deltion", rl)  # from which Python suggests Deletion
    with pytest.raises(ImportError, match="cannot import name 'Deltion' from 'resnet_lesion'"):
        exec("from resnet_lesion import Deltion")


def test_names_are_pickled():
    assert pickle.loads(pickle.dumps((rl.Deletion, rl.Recipe(epochs=3)))) == (rl.Deletion, rl.Recipe(epochs=3))


def test_adapters_are_loaded_when_a_block_is_looked_up_and_documented_paths_need_no_import_of_their_own():
    program = """
import resnet_lesion as rl, sys
from torch import nn
rl.Deletion, rl.study, rl.train
print(rl.testing.__name__, rl.digits.__name__, rl.plots.__name__)
print(*{"timm", "resnet_lesion_timm"} & sys.modules.keys(), "-")
rl.find_branch(rl.Residual(nn.ReLU(), nn.ReLU()))
print("resnet_lesion_timm" in sys.modules)
"""
    paths = ["resnet_lesion.testing", "resnet_lesion.digits", "resnet_lesion.plots"]
    assert python(program) == [*paths, "-", "True"]


def test_timm_knows_our_models_and_xarray_our_accessor_though_imported_later(tmp_path):
    path = tmp_path / "deletion.nc"
    rl.save(synthetic.deletion(), path)
    program = f"""
import resnet_lesion, timm, xarray
print(type(timm.create_model("cifar_preactresnet38")).__name__)
print(xarray.open_dataset({str(path)!r}).lesion.most_important(1).layer.item())
"""
    assert python(program) == ["CifarResNetV2", synthetic.deletion().lesion.most_important(1).layer.item()]
    assert isinstance(xr.Dataset().lesion, rl.LesionAccessor)
