"""CIFAR: where its images are, how they are augmented, what is measured on them."""
