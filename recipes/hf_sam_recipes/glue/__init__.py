"""GLUE: where its sentences are and what is measured on them."""
