"""Pictures that nobody asked to see are painted black (specification 07, section 4)."""
