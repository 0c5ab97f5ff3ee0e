"""The documentation's build: ``sphinx-build -W docs docs/_build``; every code cell is executed, offline."""

import os
from pathlib import Path
from typing import Any

# what the cells import, whatever their folder
HELPERS = str(Path(__file__).parent / "helpers")
os.environ["PYTHONPATH"] = os.pathsep.join([HELPERS, os.environ.get("PYTHONPATH", "")])
os.environ["HF_HUB_OFFLINE"] = "1"
# notebooks need no widgets here
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"

project = "resnet-lesion"
author = "the authors of resnet-lesion"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
exclude_patterns = ["_build", "results"]
autodoc_preserve_defaults = True
# shown by name, not expanded to what they stand for
autodoc_type_aliases = {
    name: name for name in ("ArrayLike", "Autocast", "Data", "ShardLike", "TargetType", "Transform")
}
html_theme = "furo"
html_show_copyright = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_render_markdown_format = "myst"  # CommonMark has no tables
suppress_warnings = ["mystnb.unknown_mime_type"]


def setup(app: Any) -> None:
    """Drop from a folder's docstring which layers are below it: that is for readers of the code."""

    def docstring(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        if what == "module":
            lines[:] = [line.partition(" Below:")[0] for line in lines]

    app.connect("autodoc-process-docstring", docstring)
