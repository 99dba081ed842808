"""The model files that are published somewhere: which there are, and getting those that a plan needs."""
