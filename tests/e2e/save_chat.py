"""Saves a chat model of MLflow that says its question back, word by word: `python save_chat.py FOLDER`."""

import sys
import textwrap
from pathlib import Path

import mlflow.pyfunc

SOURCE = """
from mlflow.models import set_model
from mlflow.pyfunc import ChatModel
from mlflow.types.llm import (
    ChatChoice, ChatChoiceDelta, ChatChunkChoice, ChatCompletionChunk, ChatCompletionResponse, ChatMessage,
)


class Echo(ChatModel):
    def predict(self, context, messages, params):
        text = messages[-1].content
        if text == "raise":
            raise ValueError("no words")
        return ChatCompletionResponse([ChatChoice(ChatMessage("assistant", text))])

    def predict_stream(self, context, messages, params):
        first, *words = messages[-1].content.split(" ")
        for word in (first, *(" " + word for word in words)):
            yield ChatCompletionChunk([ChatChunkChoice(ChatChoiceDelta("assistant", word))])


set_model(Echo())
"""

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    code = folder / "echo.py"
    code.write_text(textwrap.dedent(SOURCE))
    mlflow.pyfunc.save_model(path=str(folder / "echo"), python_model=str(code), pip_requirements=[])
