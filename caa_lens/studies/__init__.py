"""A whole study as one resumable folder: settings in, vectors, tables, figures and a report out.

Each stage is a procedure of `caa_lens.protocols` whose tables are written whole and are not made again. The command
line imports this; it knows of no option and no terminal.
"""

from caa_lens.studies import scaling as scaling
from caa_lens.studies.report import write_report as write_report
from caa_lens.studies.result import StudyResult as StudyResult
from caa_lens.studies.result import read_study as read_study
from caa_lens.studies.run import run_study as run_study
from caa_lens.studies.settings import StudySettings as StudySettings
from caa_lens.studies.settings import read_settings as read_settings
