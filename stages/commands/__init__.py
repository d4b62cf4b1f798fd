"""`python -m stages COMMAND`: what a person runs by hand; DVC runs the stages."""
