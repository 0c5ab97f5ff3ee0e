"""Let a page's ``%%bash`` cells print their output as a whole; IPython passes it on in pieces, with lines broken."""

import subprocess

from IPython.core.magic import register_cell_magic


@register_cell_magic
def bash(_line: str, cell: str) -> None:
    """Run a cell in bash."""
    done = subprocess.run(["bash", "-e", "-c", cell], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="")
