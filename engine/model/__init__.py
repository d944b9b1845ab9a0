"""A model file as something that runs: where its layers go, its weights, what it says about itself."""
