"""What the gallery's pages show of the reproduced experiments."""

from __future__ import annotations

import re
from pathlib import Path

import xarray as xr
from IPython.display import Markdown
from write_tables import table

import resnet_lesion as rl
from resnet_lesion.reports.tables import claims_table

RESULTS = Path(__file__).parents[1] / "results"


def reproduction(name: str = "digits") -> xr.DataTree:
    """Open the saved result of ``resnet-lesion reproduce``."""
    tree = rl.open(RESULTS / f"reproduction-{name}.nc")
    assert isinstance(tree, xr.DataTree)
    return tree


def claims(tree: xr.DataTree, *figures: str) -> Markdown:
    """Show the paper's claims with the results, for some figures or for all."""
    head, *rows = claims_table(tree["claims"].to_dataset())
    if figures:
        rows = [row[1:] for row in rows if row[0] in figures]
        head = head[1:]
    return Markdown(table(head, [[*row[:-1], re.sub("^no", "**no**", row[-1])] for row in rows]))


def networks(tree: xr.DataTree) -> Markdown:
    """Show how the networks were trained and their error rates."""
    rows = []
    for name, node in tree["training"].children.items():
        log = node.to_dataset()
        rows.append(
            [
                f"`{name}`",
                str(log.attrs["model"]),
                str(log.sizes["epoch"]),
                f"{100 * float(log.validation_error[-1]):.2f} %",
            ]
        )
    return Markdown(table(["training", "network", "epochs", "error"], rows))
