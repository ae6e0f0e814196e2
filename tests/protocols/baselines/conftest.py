"""Where a weight lies and what its gradient is differs from one architecture to the next: all of them."""

import selection
import tiny_models

model = selection.model_fixture(tiny_models.STYLES)
