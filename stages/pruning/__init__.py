"""What prunes a network: which parts go, how many of each layer, and what recovers it."""
