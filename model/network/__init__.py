"""The network: loading, encoding, packing, sampling; one file a family of models."""
