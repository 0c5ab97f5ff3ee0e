"""Every name of the API reference says what it takes, returns, refuses and rests on, with an example that runs."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import resnet_lesion as rl
from resnet_lesion import plots

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"
DIRECTIVE = re.compile(r"\.\. auto(?:function|class|exception):: ([\w.]+)\n(?: +:members:(.*)\n)?")
# what the paper, or another, defines
FROM_A_PAPER = (
    "Deletion",
    "Reorder",
    "PathGradient",
    "EffectivePath",
    "BlockStatistics",
    "Branch",
    "Recipe",
    "path_counts",
    "path_fraction",
    "remaining_fraction",
    "study",
)
DEFINED_BY_AN_EQUATION = (*FROM_A_PAPER[:5], *FROM_A_PAPER[7:10])


def documented():
    """Map the names that stand in the reference to what they are; members as Class.member."""
    found = {}
    for entry in DIRECTIVE.finditer(PAGE.read_text()):
        name, members = entry.groups()
        module, _, attribute = name.rpartition(".")
        target = getattr(importlib.import_module(module or "resnet_lesion"), attribute)
        found[name] = target
        if members is None:
            continue
        for member in members.replace(",", " ").split() or [m for m in vars(target) if not m.startswith("_")]:
            if inspect.isfunction(vars(target)[member]) or isinstance(vars(target)[member], property):
                found[f"{name}.{member}"] = vars(target)[member]
    return found


DOCUMENTED = documented()
CALLABLES = {name: value for name, value in DOCUMENTED.items() if callable(value)}


def test_the_whole_api_is_in_the_reference():
    exported = {name for name in rl.__all__ if not name.startswith("_")}
    exported = {name for name in exported if not inspect.ismodule(getattr(rl, name))}
    assert exported - {name.rpartition(".")[2] for name in DOCUMENTED} == set()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_it_begins_with_a_sentence(name):
    first = inspect.getdoc(DOCUMENTED[name]).partition("\n\n")[0]
    assert first.endswith(".")
    assert first[0].isupper()


@pytest.mark.parametrize("name", [name for name in CALLABLES if not name.endswith("Error")])
def test_parameters_and_what_comes_back_are_described(name):
    target = CALLABLES[name]
    doc, signature = inspect.getdoc(target), inspect.signature(target)
    parameters = [parameter for parameter in signature.parameters if parameter != "self"]
    missing = [p for p in parameters if not re.search(rf"^ *\*?{p}(, .*)?: ", doc, re.MULTILINE)]
    assert not missing or name.endswith(".forward")
    if parameters and not inspect.isclass(target) and signature.return_annotation != "None":
        assert re.search("Returns:|Yields:", doc) or name.endswith(".forward")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_example_shows_it(name):
    example = inspect.getdoc(DOCUMENTED[name]).partition(">>>")[2]
    assert example
    cls, _, member = name.rpartition(".")
    assert cls not in DOCUMENTED or re.search(rf"\b{member}\b", example)


@pytest.mark.parametrize("name", FROM_A_PAPER)
def test_papers_are_cited(name):
    assert re.search(r"References:\n +.*\(arXiv:\d{4}\.\d{5}\)", inspect.getdoc(getattr(rl, name)), re.DOTALL)


@pytest.mark.parametrize("name", DEFINED_BY_AN_EQUATION)
def test_definitions_are_equations(name):
    assert ":math:`" in inspect.getdoc(getattr(rl, name)) or ".. math::" in inspect.getdoc(getattr(rl, name))


@pytest.mark.parametrize("name", [name for name in vars(plots) if inspect.isfunction(vars(plots)[name])])
def test_figures_say_what_they_draw(name):
    drawing = vars(plots)[name]
    if not drawing.__module__.startswith("resnet_lesion.plots."):
        return
    doc = inspect.getdoc(drawing)
    assert "Args:" in doc
    assert "Returns:" in doc
    assert "Raises:" in doc or name == "available"
    assert f"{name}(" in re.search(r">>>.*", doc, re.DOTALL)[0]


FIGURES = [name for name in vars(rl.LesionAccessor) if name.startswith("plot_")]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_the_accessor_say_when_they_cannot_be_drawn(name):
    assert "Raises:\n    ValueError: If" in inspect.getdoc(getattr(rl.LesionAccessor, name))
