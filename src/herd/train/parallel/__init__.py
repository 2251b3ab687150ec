"""A run on many processes: the plan, and what makes a built model parallel from outside."""
