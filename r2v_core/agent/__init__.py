"""The closed loop: candidates, routing rules, budgets, vectorised rollouts."""
