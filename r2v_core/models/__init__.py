"""What policy, verifier and router are, and how they are loaded."""
