"""Picture arithmetic on arrays: sizes, masks, fills, compositing and control pictures. No torch, no files."""
