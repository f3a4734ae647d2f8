"""Training: examples in, optimiser steps, checkpoints out."""
