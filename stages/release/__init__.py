"""What a release folder has beside the graphs: names for each consumer, provenance, bill of materials, signature."""
