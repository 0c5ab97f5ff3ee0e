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


def test_documented_paths():
    names = python("import resnet_lesion as rl; print(rl.testing.__name__, rl.digits.__name__, rl.plots.__name__)")
    assert names == ["resnet_lesion.testing", "resnet_lesion.digits", "resnet_lesion.plots"]


def test_other_names_are_not():
    with pytest.raises(AttributeError, match=r"^module 'resnet_lesion' has no attribute 'Deltion'$"):
        _ = rl.Deltion
    with pytest.raises(ImportError, match="cannot import name 'Deltion' from 'resnet_lesion'"):
        exec("from resnet_lesion import Deltion")


def test_names_are_pickled():
    assert pickle.loads(pickle.dumps((rl.Deletion, rl.Recipe(epochs=3)))) == (rl.Deletion, rl.Recipe(epochs=3))


@pytest.mark.parametrize(
    "imports", ["from timm import layers; import resnet_lesion, timm", "import resnet_lesion, timm"]
)
def test_models_are_registered_with_timm_whatever_is_imported_first(imports):
    built = python(f"{imports}; print(type(timm.create_model('cifar_preactresnet38')).__name__)")
    assert built == ["CifarResNetV2"]


def test_adapters_are_loaded_when_a_block_is_looked_up():
    program = """
import resnet_lesion as rl, sys
from torch import nn
rl.Deletion, rl.study, rl.train
print(*{"timm", "resnet_lesion_timm"} & sys.modules.keys(), "-")
rl.find_branch(rl.Residual(nn.ReLU(), nn.ReLU()))
print("resnet_lesion_timm" in sys.modules)
"""
    assert python(program) == ["-", "True"]


@pytest.mark.parametrize("imports", ["import resnet_lesion, xarray", "import xarray, resnet_lesion"])
def test_files_that_xarray_opens_have_the_accessor(imports, tmp_path):
    path = tmp_path / "deletion.nc"
    rl.save(synthetic.deletion(), path)
    program = f"{imports}; print(xarray.open_dataset({str(path)!r}).lesion.most_important(1).layer.item())"
    assert python(program) == [synthetic.deletion().lesion.most_important(1).layer.item()]
    assert isinstance(xr.Dataset().lesion, rl.LesionAccessor)
