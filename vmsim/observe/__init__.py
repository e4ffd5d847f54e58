"""Looking at what was simulated: one walk explained, page tables dumped."""
