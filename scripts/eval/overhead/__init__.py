"""The cost of gilprof and its peers, side by side on the same targets."""
