"""What runs a pipeline: its components, one after another, over a whole recording or over live audio."""
