"""The compiled core: one small wrapper per concept of csrc/kollama.h."""
