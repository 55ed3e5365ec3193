"""What the demos share, and the sentences that one of them makes up."""
