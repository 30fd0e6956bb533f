"""Live use: a face moved by a camera, with as little delay as the machine allows. Nothing here needs torch."""
