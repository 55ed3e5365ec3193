"""What the scripts of `recipes/`, `glue_runs/` and `cifar_runs/` share. Imports only point down:

benchmarks              GLUE and CIFAR, as the runner and the report know them
matrix                  runs over tasks, methods and seeds: planned, done, recorded, reported
demos, glue, images     what one kind of script needs: its data, its options, its metric
common                  what all scripts need
"""

from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[2]
