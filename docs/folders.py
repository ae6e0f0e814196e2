"""Which folder of `caa_lens` imports which: the table that `tests/test_layout.py` enforces.

A folder stands below all that import it, so every arrow points down and there is no circle. The table says exactly what
is there: an arrow that no file needs any more is an error too, and `docs/architecture.md` is made from it.
"""

from __future__ import annotations

IMPORTS: dict[str, tuple[str, ...]] = {
    "cli": (
        *("studies", "protocols", "evaluation", "judging", "organism", "analysis", "sweeps", "steering", "extraction"),
        *("prompts", "interventions", "viz", "vectors", "models", "datasets", "files"),
    ),
    "studies": (
        *("protocols", "evaluation", "analysis", "sweeps", "steering", "extraction", "prompts", "viz", "vectors"),
        *("models", "datasets", "files"),
    ),
    "explorer": (
        *("analysis", "sweeps", "steering", "prompts", "interventions", "viz", "vectors", "models", "datasets"),
        "files",
    ),
    "protocols": (
        *("evaluation", "judging", "organism", "analysis", "sweeps", "steering", "extraction", "prompts", "engine"),
        *("interventions", "vectors", "models", "datasets", "files"),
    ),
    "judging": ("evaluation", "steering", "prompts", "engine", "vectors", "models", "datasets", "files"),
    "evaluation": (
        *("sweeps", "steering", "extraction", "prompts", "engine", "interventions", "vectors", "models", "datasets"),
        "files",
    ),
    "organism": ("vectors", "files"),
    "analysis": (
        *("steering", "extraction", "prompts", "engine", "interventions", "vectors", "models", "datasets", "files"),
    ),
    "interop": ("vectors", "datasets", "files"),
    "sweeps": ("steering", "prompts", "engine", "interventions", "vectors", "models", "datasets", "files"),
    "steering": ("extraction", "prompts", "engine", "interventions", "vectors", "models", "files"),
    "extraction": ("prompts", "engine", "vectors", "models", "datasets", "files"),
    "prompts": ("models", "datasets", "files"),
    "engine": ("interventions", "models"),
    "interventions": ("vectors", "files"),
    "viz": ("files",),
    "vectors": ("files",),
    "models": ("files",),
    "datasets": ("files",),
    "files": (),
}
"""Folders and files of the root, each with what it imports, from the top floor down."""
