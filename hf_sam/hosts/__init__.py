"""The trainers that the mixin stands in front of: their options, their data, their counters, what they do once."""
