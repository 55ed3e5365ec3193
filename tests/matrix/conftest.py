"""Makes the runner importable as its scripts import it: with `recipes/` and the benchmarks' folders on the path."""

import os
import sys
from pathlib import Path


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).parents[2]
for folder in ("recipes", "glue_runs", "cifar_runs"):
    sys.path.insert(0, str(REPOSITORY / folder))
