"""What the recipe scripts share: options, examples, metrics, and the story of a run."""
