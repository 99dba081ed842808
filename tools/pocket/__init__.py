"""Training of the pocket model: pictures, captions, networks, training loops, export and evaluation."""
