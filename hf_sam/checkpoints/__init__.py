"""What is saved, whether it is whole, how it is read."""
