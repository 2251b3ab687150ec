"""One file a capability. Each has `draw(world, rng, lang) -> Draft`: one random question with answer and check."""
