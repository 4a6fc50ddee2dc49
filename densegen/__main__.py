"""``python -m densegen``."""

from densegen.cli import main

if __name__ == "__main__":
    main(prog_name="densegen")
