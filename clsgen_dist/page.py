"""Pages for people: one self-contained HTML file from a template, every word of a row escaped."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
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


def say_number(value: Any) -> str:
    """A number for people: fractions with three digits, counts as they are, None as undefined."""
    if isinstance(value, float):
        words = f"{value:.3f}"
        return "0.000" if words == "-0.000" else words
    return "undefined" if value is None else str(value)


def say_span(ends: Sequence[float] | None) -> str:
    """An interval for people; None, where there is none, as nothing."""
    return "" if ends is None else f"{say_number(ends[0])} to {say_number(ends[1])}"


def say_percent(share: float) -> str:
    """A share, 0 to 1, for people; rounding never makes it look like none or all."""
    words = f"{100 * share:.1f} %"
    if words == "100.0 %" and share < 1:
        return "> 99.9 %"
    return "< 0.1 %" if words == "0.0 %" and share > 0 else words


def embed_picture(picture: Path) -> str:
    """A PNG file as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
