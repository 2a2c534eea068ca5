"""``python -m api.cli ROLE`` is ``guishu ROLE``, by the interpreter that runs already."""

from api.cli.main import run

if __name__ == "__main__":
    run()
