"""Other tools' formats, in and out: one module for each.

It knows of values and files, of no model; notebooks and commands import it.
"""

from caa_lens.interop import caa_repository as caa_repository
from caa_lens.interop import caa_results as caa_results
