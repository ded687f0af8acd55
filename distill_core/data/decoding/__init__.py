"""Decoding: from the bytes of images to uint8 arrays, here or in processes of their own."""
