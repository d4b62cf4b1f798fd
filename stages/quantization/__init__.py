"""What quantizes a graph: one file for each kind of recipe, and what tells it the activations."""
