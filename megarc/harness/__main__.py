"""lm-eval's command with our model: ``python -m megarc.harness --model megarc --model_args run=runs/mine ...``"""

from megarc.errors import run_script


def main() -> None:
    from megarc.harness.lm_eval_model import command

    command()


if __name__ == "__main__":
    run_script(main)
