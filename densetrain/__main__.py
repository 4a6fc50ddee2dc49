"""``python -m densetrain``."""

from densetrain.cli import main

if __name__ == "__main__":
    main(prog_name="densetrain")
