"""Using a model without training it: evaluation, generation, and predictors of finished runs."""
