"""Training one adapter: recipe, preparation, loop, run folder."""
