"""A frozen base, its map of sites, and the adapters attached to it."""
