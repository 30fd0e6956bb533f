"""Networks that measure faces: where landmarks are, how a head is turned, what it expresses, and who it is."""
