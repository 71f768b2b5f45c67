"""`losia chat`: talk to a trained model."""

from typing import Annotated

import typer

from losia_cli.cli.app import app


@app.command()
def chat(
    run: Annotated[str, typer.Argument(help="The output_dir of a run, a checkpoint or a hub id.")],
    template: Annotated[
        str | None, typer.Option(help="A LLaMA-Factory template; by default the run's own.")
    ] = None,
) -> None:
    """Talk to a trained model on the terminal, in the template it was trained with.

    LLaMA-Factory's own chat: `clear` forgets the conversation, `exit` ends it. Examples:

        losia chat runs/quickstart/model

        losia chat meta-llama/Llama-2-7b-chat-hf --template llama2
    """
    from losia_cli.chat import chat_arguments

    arguments = chat_arguments(run, template)
    from losia_cli.integrations.llamafactory import chat as talk

    talk(arguments)
