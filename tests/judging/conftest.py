"""Answers are read and written by paths that are tested on every architecture: three will do here."""

import selection

model = selection.model_fixture(selection.THREE_STYLES)
