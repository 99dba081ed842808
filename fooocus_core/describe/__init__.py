"""Pictures in words (specification 07, section 3)."""
