"""Masks found in a picture: what stands out, what is worn, or what a text names (specification 07, section 2).

``generate.generate_mask`` is the door; nothing here imports torch, onnxruntime or rembg before it is called.
"""
