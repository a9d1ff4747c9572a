"""Sphinx: `make docs` copies these pages, the notebooks and the benchmarks' page together and builds them."""

import re

import sparsefm

project = "sparsefm"
copyright = "the sparsefm developers"
version = release = sparsefm.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_nb"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs that are committed; tests run the notebooks and the pages' code

autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"

html_theme = "furo"
html_title = f"sparsefm {release}"
html_copy_source = False


suppress_warnings = ["ref.python"]  # words such as n_features in a signature, which are attributes of several classes


def setup(app):
    """What scikit-learn adds to every estimator is described there; names that end in _ and | are meant as they are."""
    app.connect("autodoc-skip-member", lambda _, kind, name, member, skip, options: skip or _is_sklearns(member))
    app.connect("autodoc-process-docstring", lambda _, kind, name, member, options, lines: _escape(lines), priority=900)


def _is_sklearns(member):
    return (getattr(member, "__module__", None) or "").startswith("sklearn")


def _escape(lines):
    """In place; examples and what stands between backticks stay."""
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = re.split(r"(`+[^`]*`+)", line)
            parts[::2] = [re.sub(r"(?<=\w)_(?!\w)|\|", lambda found: "\\" + found[0], part) for part in parts[::2]]
            lines[i] = "".join(parts)
