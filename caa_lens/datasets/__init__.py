"""What goes in: contrast pairs, questions and texts, read, checked and split.

Everything that takes data may import this. It knows of files and records, of no model, no tokens and no vector.
"""

from caa_lens.datasets.contrast import ContrastDataset as ContrastDataset
from caa_lens.datasets.contrast import ContrastPair as ContrastPair
from caa_lens.datasets.contrast import LoadReport as LoadReport
from caa_lens.datasets.contrast import as_dataset as as_dataset
from caa_lens.datasets.contrast import behaviors as behaviors
from caa_lens.datasets.contrast import check_apart as check_apart
from caa_lens.datasets.contrast import load_contrast_pairs as load_contrast_pairs
from caa_lens.datasets.contrast import load_questions as load_questions
from caa_lens.datasets.texts import load_texts as load_texts
