"""The site of the documents: ``make docs`` builds it with Sphinx.

The documents are plain RST, and their links work in a checkout, too. ``_sphinx`` has
what the site adds: it resolves these links, highlights blocks, and makes the menu, and
pages of examples, manual pages and docstrings. Sources that only Sphinx can read end
with ``.txt``.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_sphinx"))

project = "file-bucket"
author = "file-bucket developers"
copyright = author  # noqa: A001
(release,) = re.findall(
    r'(?m)^__version__ = "(.+)"', (HERE.parent / "filebucket/__init__.py").read_text()
)

extensions = ["links", "menu", "highlight", "shown", "manual", "api"]
source_suffix = {".rst": "restructuredtext", ".txt": "restructuredtext"}
exclude_patterns = ["_build"]
nitpicky = True
# Docstrings also name what has no page here: other modules, and other packages.
nitpick_ignore_regex = [("py:.*", ".*")]
highlight_language = "none"
add_module_names = False
# Names of options begin with two dashes, not with one long one.
smartquotes = False

html_theme = "furo"
html_title = f"file-bucket {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
# Browsers let no page read another one beneath file:///.
html_show_search_summary = False
