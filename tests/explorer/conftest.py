"""What is shown is what `generate`, `project` and `sweep` give: three architectures will do here."""

import selection

model = selection.model_fixture(selection.THREE_STYLES)
