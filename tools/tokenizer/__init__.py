"""How the packaged CLIP vocabulary is made."""
