"""A result as one HTML page that stands alone: findings, figures, tables, and where it came from."""

from __future__ import annotations

import base64
import io
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from resnet_lesion.plots.catalogue import figures
from resnet_lesion.reports.findings import findings
from resnet_lesion.reports.summary import source_of
from resnet_lesion.reports.tables import is_number, table_of
from resnet_lesion.results.quantities import groups
from resnet_lesion.results.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(result: xr.Dataset | xr.DataTree, path: Path) -> None:
    """Write a result as a page that needs no other file.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned.
        path: The HTML file; an existing one is replaced.

    Raises:
        ValueError: If there is nothing to draw in the result.
        ModuleNotFoundError: If matplotlib is not installed.
        FileNotFoundError: If the folder does not exist.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True)
    environment.tests["number_like"] = is_number
    template = environment.from_string(files("resnet_lesion.reports").joinpath("page.html.jinja").read_text("utf-8"))
    text = template.render(
        title=result.attrs.get("title") or _title(result),
        source=_source(result),
        sections=_sections(result),
        version=version("resnet-lesion"),
    )
    with whole_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def _title(result: xr.Dataset | xr.DataTree) -> str:
    models = {str(dataset.attrs["model"]) for _, dataset in groups(result) if "model" in dataset.attrs}
    return f"Lesion study of {', '.join(sorted(models))}" if models else "Lesion study"


def _source(result: xr.Dataset | xr.DataTree) -> list[list[str]]:
    """Say where all of it came from: the command, and what its first group says about the network and the data."""
    _, first = next(iter(groups(result)))
    rows = [[name, str(value)] for name, value in source_of(first.attrs).items()]
    history = result.attrs.get("history", first.attrs.get("history"))
    return rows + ([["history", str(history)]] if history else [])


def _sections(result: xr.Dataset | xr.DataTree) -> list[dict[str, Any]]:
    drawn = figures(result)
    sections = []
    for group, dataset in groups(result):
        prefix = f"{group.replace('/', '-')}-" if group else ""
        own = {name: drawn.pop(name) for name in list(drawn) if name.startswith(prefix)}
        title = str(dataset.attrs.get("title", group))
        sections.append(
            {
                "id": group.replace("/", "-") or "result",
                "name": group or title,
                "heading": f"{group}: {title}" if group and title != group else title,
                "findings": findings(dataset),
                "figures": [{"name": name, "png": _png(figure)} for name, figure in own.items()],
                "table": table_of(dataset),
                "source": [[name, str(value)] for name, value in dataset.attrs.items()],
            }
        )
    sections += [
        {"id": name, "name": name, "heading": name, "figures": [{"name": name, "png": _png(figure)}]}
        for name, figure in drawn.items()
    ]
    return sections


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return base64.b64encode(file.getvalue()).decode()
