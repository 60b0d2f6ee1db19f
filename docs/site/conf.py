"""Settings of Sphinx for the site; build.py prepares the pages and calls it."""

from importlib.metadata import version

import latex2mathml.converter
from docutils import nodes

project = "infomax"
author = copyright = "The infomax authors"  # noqa: A001
version = release = version("infomax")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
templates_path: list[str] = []
highlight_language = "text"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
napoleon_google_docstring, napoleon_numpy_docstring = True, False
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
suppress_warnings = ["docutils", "ref.python"]  # of docstrings, which are read in an editor too

html_theme = "furo"
html_title = f"infomax {release}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "tango", "monokai"


def inline_math(self, node):
    """Writes a formula within a line as MathML, which browsers draw without a script or a font from elsewhere."""
    self.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def displayed_math(self, node):
    """Writes a formula on a line of its own."""
    self.body.append(f'<div class="math">{latex2mathml.converter.convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
