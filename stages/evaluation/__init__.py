"""What is watched of an artifact's networks while a family scores them."""
