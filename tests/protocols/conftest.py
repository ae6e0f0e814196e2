"""Procedures call paths whose exactness is tested on every architecture: three will do here."""

import selection

model = selection.model_fixture(selection.THREE_STYLES)
