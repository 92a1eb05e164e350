"""Images and patches: dataset readers, image decoding, augmentation and batch sampling."""
