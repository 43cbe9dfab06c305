"""A small semi-supervised training kit: teacher → held-out predictions → decisions → student."""
