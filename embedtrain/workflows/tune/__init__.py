"""Search for better settings of a recipe within a budget of time; the winner is an ordinary recipe."""
