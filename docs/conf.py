"""The site of these pages: ``make docs``."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import reference

project = "densegen"
version = release = version_of("densegen")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["images/*"]
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "furo"
html_title = "densegen"
html_favicon = "images/icon.svg"
html_theme_options = {"source_edit_link": ""}
html_show_sphinx = False
html_show_copyright = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88


def setup(app: Any) -> None:
    """Write the reference, and read the docstrings' own notation of parameters."""
    app.connect("builder-inited", lambda app: reference.write_pages(Path(app.srcdir) / "reference"))
    app.connect("autodoc-process-docstring", lambda app, what, name, found, options, lines: reference.as_fields(lines))
