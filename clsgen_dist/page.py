"""Pages for people: one self-contained HTML file from a template, every word of a row escaped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

#: Makes words of a value, under a name in the templates.
Filters = Mapping[str, Callable[[Any], str]]


def write_page(path: Path, template: str, filters: Filters, **values: Any) -> None:
    """Renders a template of this package and writes the page whole; the same values give the same bytes.

    Args:
        path: the HTML file to write; its folder exists.
        template: name of the template below this package, as "evaluate/report.html.j2".
        filters: what the template calls on values.
        values: what the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clsgen_dist", package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    page = environment.get_template(template).render(values)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Half a surrogate pair, as broken JSON brings it, is no reason to have no page.
        unfinished.write_bytes(page.encode("utf-8", errors="replace"))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
