"""From a clip's id to its wav, or to the reason why there is none."""
