"""Made-up GLUE, in the formats in which the real one is distributed."""

from ..folders import made_folder
from . import made_glue


# All nine tasks as parquet files with the Hub's columns, and the same examples as the official TSV files.
parquet_folder = made_folder(made_glue.write_parquet, made_glue.TASKS)
tsv_folder = made_folder(made_glue.write_tsv, made_glue.TASKS)
# A tiny BERT without dropout, so that runs on one and two ranks can be compared.
model_folder = made_folder(made_glue.write_model, [0.0])
