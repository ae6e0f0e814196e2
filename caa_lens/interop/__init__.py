"""Other tools' formats, in and out: one module for each.

Notebooks and users import this, and no folder does. It knows of values and files, of no model.
"""

from caa_lens.interop import caa_repository as caa_repository
from caa_lens.interop import caa_results as caa_results
