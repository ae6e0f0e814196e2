"""circuitsvis's components for token views: its script, once per document, from the installed package.

A view (`live`) is its boxes plus the numbers and one line that puts it on the page's list of views. The script takes
everything on that list, before or after it on the page, and draws it with circuitsvis. So views need no order, a page
needs the script's 1.3 MB once, and where no script runs the boxes stay. circuitsvis's own `render` is not used: it asks
the network whether to load the script from there, and repeats it in every output. `components.js` puts the rest right.

In a notebook the script travels with the first view of a kernel's life, and with that cell's first view again whenever
the cell is run again, so that a saved notebook holds it once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_carrier: dict[str, str] = {}
"""The cell whose output holds this kernel's script, and the request that it answered."""


def script() -> str:
    """The script element that brings all views of a document to life; a second one in a document does nothing."""
    return f"<script>\n{_inside_script(code())}</script>\n"


def code() -> str:
    """What is in `script`, bare."""
    bundle = (_circuitsvis() / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    bundle = re.sub(r"//# sourceMappingURL=.*", "", bundle)  # browsers' developer tools would ask for that file
    loader = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return (
        "(() => {\nif (window.caaLensViews && !Array.isArray(window.caaLensViews)) return;\n"
        f"const CircuitsVis = (() => {{\n{bundle}\nreturn CircuitsVis;\n}})();\n{loader}}})();"
    )


def live(boxes: str, data: Mapping[str, Any]) -> str:
    """Boxes, with the numbers that circuitsvis's component needs to take their place."""
    numbers = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="caa-still">{boxes}</div>'
        f'<script type="application/json">{numbers}</script>'
        "<script>(window.caaLensViews = window.caaLensViews || []).push(document.currentScript.parentElement)</script>"
    )


def script_for_output() -> str:
    """The script, where this output of a notebook is the one to carry it or there is no notebook; else nothing."""
    request = _request()
    if request is None:
        return script()
    cell, message = request
    if _carrier and (_carrier["cell"] != cell or _carrier["message"] == message):
        return ""
    _carrier.update(cell=cell, message=message)
    return script()


def _request() -> tuple[str, str] | None:
    """The notebook cell that is running, and the request to run it; None outside of a kernel."""
    ipython: Any = sys.modules.get("IPython")  # a kernel has long imported it
    shell: Any = ipython and ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    parent: Mapping[str, Any] = shell.get_parent() or {}
    message = str(parent.get("header", {}).get("msg_id", ""))
    return str(parent.get("metadata", {}).get("cellId", message)), message


def _circuitsvis() -> Path:
    """The installed package's folder; circuitsvis itself is not imported."""
    spec = find_spec("circuitsvis")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("token views need circuitsvis, which is not installed: run 'pip install circuitsvis'")
    return Path(spec.origin).parent


def _inside_script(code: str) -> str:
    """Code that cannot end the script element around it; in the strings where this stands it means the same."""
    return code.replace("</script", r"<\/script").replace("<!--", r"<\!--")
