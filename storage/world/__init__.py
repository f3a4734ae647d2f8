"""A made world (the demo's): sounds, videos, questions, and the server that serves them."""
