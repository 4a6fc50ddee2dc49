"""Where fits and photographs come from."""
