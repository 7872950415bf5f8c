"""The ``lowbit`` command: `main` runs it; commands stand in `app`, options in `options`, printing in `console`.

Exit status 0 only on success, 1 where the work failed, 2 where the command was wrong; errors are one line on stderr.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Without the program's name; default those of the process.

    Returns:
        The exit status.
    """
    try:
        import rich  # noqa: F401
        import typer
    except ImportError as error:
        return _fail(f'the command line needs {error.name}: pip install "lowbit[cli]"', 1)

    from lowbit.cli.app import app

    try:
        command = typer.main.get_command(app)
        result = command.main(args=arguments, prog_name="lowbit", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Abort:
        return _fail("interrupted", 130)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; say nothing at exit
        return 1
    except (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, MemoryError) as error:
        return _fail(_one_line(error), 1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: a wrong option, a missing argument
            raise
        return _fail(_one_line(error.format_message()), int(getattr(error, "exit_code", 2)))


def _one_line(error: object) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__


def _fail(message: str, status: int) -> int:
    print(f"lowbit: error: {message}", file=sys.stderr)
    return status
