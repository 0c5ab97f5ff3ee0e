"""What the gallery's pages show of the reproduced experiments."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from IPython.display import Markdown
from write_tables import table

import resnet_lesion as rl

RESULTS = Path(__file__).parent / "results"


def reproduction(name: str = "digits") -> xr.DataTree:
    """Open the saved result of ``resnet-lesion reproduce``."""
    tree = rl.open(RESULTS / f"reproduction-{name}.nc")
    assert isinstance(tree, xr.DataTree)
    return tree


def claims(tree: xr.DataTree, *figures: str) -> Markdown:
    """Show the paper's claims beside the results, of some figures or of all."""
    dataset = tree["claims"].to_dataset()
    rows = []
    for i in range(dataset.sizes["claim"]):
        row = dataset.isel(claim=i)
        if figures and str(row.figure.item()) not in figures:
            continue
        low, high = float(row.low), float(row.high)
        interval = f" ({low:.3g} to {high:.3g})" if low == low and high == high else ""
        rows.append(
            [
                *([] if figures else [str(row.figure.item())]),
                str(row.statement.item()),
                str(row.quantity.item()),
                "" if float(row.paper) != float(row.paper) else f"{float(row.paper):.3g}",
                f"{float(row.ours):.3g}{interval}",
                f"{'yes' if row.agrees else '**no**'}, if {row.criterion.item()}",
            ]
        )
    head = ["the paper", "measured", "paper's value", "ours", "same conclusion"]
    return Markdown(table(head if figures else ["figure", *head], rows))


def networks(tree: xr.DataTree) -> Markdown:
    """Show how the networks were trained and how often they err."""
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
