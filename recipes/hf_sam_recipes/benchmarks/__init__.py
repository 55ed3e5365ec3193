"""The benchmarks: their tasks, recipes and methods, and what others publish on them."""
