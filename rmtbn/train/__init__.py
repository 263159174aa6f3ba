"""Training: loops that take the model and the data as arguments."""
