"""What web benchmarks share: the browser, its tabs and traffic, the page as a tree, actions on it."""
