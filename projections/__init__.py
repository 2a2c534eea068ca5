"""The read side: one module a read model, and the runner that keeps them up to date."""
