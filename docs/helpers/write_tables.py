"""Write the tables of the documentation from results and from the code itself, so that none is typed by hand.

python docs/helpers/write_tables.py            # those from saved results
python docs/helpers/write_tables.py --models   # also the models' table: minutes
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import timm
import xarray as xr

import resnet_lesion as rl

DOCS = Path(__file__).parents[1]
OPTION_A = {
    "ResNet-20": DOCS / "results" / "resnet20-cifar10-jpeg.nc",
    "ResNet-32": DOCS / "results" / "resnet32-cifar10-jpeg.nc",
}
ADAPTER_PAGE, MODELS_PAGE = DOCS / "how-to" / "write-an-adapter.md", DOCS / "reference" / "supported-models.md"


def main() -> None:
    """Rewrite the tables in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", action="store_true", help="ask every timm model again")
    if parser.parse_args().models:
        write_section(MODELS_PAGE, "models", models_table(list(rl.supported_models())))
    write_section(ADAPTER_PAGE, "option-a", deletion_table({name: rl.open(file) for name, file in OPTION_A.items()}))


def section(page: Path, name: str) -> str:
    """Return what stands between a page's markers of this name."""
    start, end = _markers(name)
    return page.read_text().partition(start)[2].partition(end)[0].strip()


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between a page's markers of this name."""
    start, end = _markers(name)
    before, _, rest = page.read_text().partition(start)
    page.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}")


def deletion_table(results: dict[str, xr.Dataset]) -> str:
    """One row for each deleted block: its error in every network that has one of this name, with the 95 % interval."""
    layers = sorted({layer for result in results.values() for layer in result.layer.values.tolist()})
    rows = [["none", *(f"{100 * float(result.baseline_error):.1f} %" for result in results.values())]]
    for layer in layers:
        cells = (result.sel(layer=layer) if layer in result.layer else None for result in results.values())
        rows.append([f"`{layer}`", *("" if cell is None else _percent(cell) for cell in cells)])
    return table(["deleted block", *(f"error of {name}" for name in results)], rows)


def models_table(answers: Iterable[rl.Support]) -> str:
    """One row for each file of timm and each answer that its models give."""
    kinds: dict[tuple[str, bool, str], list[rl.Support]] = {}
    answers = [answer for answer in answers if answer.module.startswith("timm.")]
    for answer in answers:
        kinds.setdefault((answer.module, answer.covered, _kind(answer)), []).append(answer)
    rows = []
    for (module, _, kind), alike in sorted(kinds.items()):
        classes = sorted({name for answer in alike for name in answer.block_classes})
        names = [answer.name for answer in alike]
        shown = ", ".join(f"`{name}`" for name in names[:3]) + (", ..." if len(names) > 3 else "")
        blocks = ", ".join(f"`{name}`" for name in classes)
        rows.append([f"`{module.rpartition('.')[2]}`", str(len(names)), shown, blocks or "not covered", kind])
    covered, with_paths = sum(a.covered for a in answers), sum(a.path_gradients for a in answers)
    return (
        f"Of the {len(answers)} names of timm {timm.__version__}, {covered} are covered, {with_paths} of them with "
        "path gradients.\n\n" + table(["file", "names", "such as", "blocks", "path gradients"], rows)
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _percent(cell: xr.Dataset) -> str:
    error, low, high = (100 * float(cell[name]) for name in ("error", "error_low", "error_high"))
    return f"{error:.1f} % ({low:.1f} to {high:.1f})"


def _kind(answer: rl.Support) -> str:
    if answer.path_gradients:
        return "yes"
    if not answer.covered:
        # which of its classes have no adapter differs from name to name within one file
        return answer.reason.partition(" Its own classes")[0].partition(" Register")[0]
    return "no: a plain network" if "has no skip" in answer.reason else "no: some paths bypass the blocks"


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- table {name}: written by docs/helpers/write_tables.py -->", f"<!-- end of table {name} -->"


if __name__ == "__main__":
    main()
