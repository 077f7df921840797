"""What somebody else's package adds: a routing rule and a stage. The tests install it beside the project."""
