"""Videos, pictures and sound: reading, writing, cropping to faces and drawing."""
