"""The compiled core: one small wrapper per concept of csrc/kollama.h."""

import sys

if sys.platform == "win32":
    import os
    from pathlib import Path

    # No RPATH there: the folder of our libraries is said before the first module is loaded.
    _libraries = os.add_dll_directory(str(Path(__file__).resolve().parent.parent / "lib"))
