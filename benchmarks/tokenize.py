"""Speed of kollama's tokenizer beside its peers: see tokenizer_bench.py."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig

if __name__ == "__main__":
    from tokenizer_bench import main

    main()
else:
    # The name of this file hides Python's own tokenize from the scripts of this folder: it is
    # handed over to whoever imports it.
    path = f"{sysconfig.get_path('stdlib')}/tokenize.py"
    spec = importlib.util.spec_from_file_location("tokenize", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["tokenize"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["tokenize"])
