"""Made-up CIFAR, in the formats in which the real one is distributed."""

from ..folders import made_folder
from . import made_cifar


# Both data sets as parquet files with the Hub's columns, and the same images as the original archives.
parquet_folder = made_folder(made_cifar.write_parquet, made_cifar.CLASSES)
pickle_folder = made_folder(made_cifar.write_pickles, made_cifar.CLASSES)
# A tiny ViT and its processor.
model_folder = made_folder(made_cifar.write_model, ["vit"])
