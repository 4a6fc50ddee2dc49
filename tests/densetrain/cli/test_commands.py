"""What the command line costs before it works."""

from __future__ import annotations

import subprocess
import sys


def test_settings_load_no_torch() -> None:
    code = (
        "import sys; from densetrain.cli import main; main(['settings', 'paper'], standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"
