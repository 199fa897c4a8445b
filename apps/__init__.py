"""The applications; each is a folder with its own model, data, losses, metrics and commands."""
