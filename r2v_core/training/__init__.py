"""How each trained thing is trained."""
