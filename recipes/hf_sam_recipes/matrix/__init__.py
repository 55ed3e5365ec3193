"""Runs over a matrix of tasks, methods and seeds: one record per finished run, and a report from the records alone.

Knows no benchmark: a [`Benchmark`](benchmark.py) says what the tasks are and which recipe script trains them.
"""
