"""``python -m lowbit``: the `lowbit` command; `doctor`, `--cmakedir`, `--includedir`, `--version` need NumPy only."""

import sys
from collections.abc import Callable


def main() -> int:
    """Answers what needs no extra here, hands the rest to `lowbit.cli`; returns the exit status."""
    import lowbit

    answers: dict[str, Callable[[], str]] = {
        "--cmakedir": lowbit.get_cmake_dir,
        "--includedir": lowbit.get_include,
        "--version": lambda: lowbit.__version__,
    }
    arguments = sys.argv[1:]
    if len(arguments) == 1 and arguments[0] in answers:
        try:
            print(answers[arguments[0]]())
        except FileNotFoundError as error:
            print(f"lowbit: error: {error}", file=sys.stderr)
            return 1
        return 0
    if arguments[:1] == ["doctor"] and "--help" not in arguments:
        from lowbit import doctor

        return doctor.main(arguments[1:])
    from lowbit.cli import main as command_line

    return command_line(arguments)


if __name__ == "__main__":
    sys.exit(main())
