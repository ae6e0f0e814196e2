"""Files written whole, files of lines that are only added to, and where the bundled data lies.

Nothing here knows what is in a file; everything else may import it, and it imports nothing of this package.
"""

from caa_lens.files.bundled import data_dir as data_dir
from caa_lens.files.whole import check_writable as check_writable
from caa_lens.files.whole import write_whole as write_whole
